package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postern/internal/config"
	"postern/internal/printable"
	"postern/internal/smtp"
	"postern/smtp-proxy/held"
)

// HeldCommand is the command line of held.
type HeldCommand struct {
	List struct {
		OlderThan age    `name:"older-than" placeholder:"AGE" help:"Only what is held for longer, such as 12h or 30d."`
		Format    string `name:"format" enum:"table,json" default:"table" help:"table, or json with an object on a line."`
	} `cmd:"" help:"Print what is held, oldest first, and exit: 0 if there is something, else 1."`
	Show struct {
		ID  string `arg:"" name:"id" help:"As list shows it."`
		Raw bool   `name:"raw" help:"The message alone, byte by byte, as the next hop would get it."`
	} `cmd:"" help:"Print a message and its envelope."`
	Release heldSome `cmd:"" help:"Send messages on to the next hop; one is removed once that has taken it."`
	Drop    heldSome `cmd:"" help:"Remove messages. Nobody gets them, and nobody is told."`
}

// heldSome are the messages that a command is about.
type heldSome struct {
	IDs       []string `arg:"" name:"id" optional:"" help:"As list shows them."`
	OlderThan *age     `name:"older-than" placeholder:"AGE" help:"All that are held for longer, such as 12h or 30d."`
}

// Exit statuses of held, beside 0 and those of wrong settings.
const (
	heldNone  = 1  // nothing is held, no message has the id, or the next hop refused one for good
	heldLater = 75 // a message stays for now: the next hop did not take it, or another command is at work on it
)

// age is a duration that may also be of days, as 30d.
type age time.Duration

// UnmarshalText reads the text of a flag.
func (a *age) UnmarshalText(text []byte) error {
	unit := time.Duration(1)
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		s, unit = days+"h", 24
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d*unit/unit != d {
		return fmt.Errorf("expected a time such as 12h or 30d but got %q", text)
	}
	*a = age(d * unit)
	return nil
}

// heldMaildir returns the path of the Maildir for what is held, if hold names one.
func (s *settings) heldMaildir() (path string, ok bool) { return strings.CutPrefix(s.Hold, "maildir:") }

// keeper carries out a command about what is held.
type keeper struct {
	box            *held.Box
	stdout, stderr io.Writer
	status         int
}

// withHeld opens the Maildir for a command, and returns the exit status.
func (p *program) withHeld(do func(*keeper) error) func(stdout, stderr io.Writer) int {
	return func(stdout, stderr io.Writer) int {
		k := &keeper{stdout: stdout, stderr: stderr}
		var err error
		switch path, ok := p.settings.heldMaildir(); {
		case ok:
			k.box, err = held.Open(path)
		case p.settings.Hold == "":
			err = errors.New("hold is not set: nothing is held")
		default:
			err = errors.New("hold is no Maildir: what is held there is for others to list and release")
		}
		if err != nil {
			k.complain(err)
			return config.ExitSettings
		}
		defer k.box.Close()
		if err := do(k); err != nil {
			k.complain(err)
			return max(k.status, config.ExitStatus(err))
		}
		return k.status
	}
}

// heldCommands are the commands by their names.
func (p *program) heldCommands() map[string]func(stdout, stderr io.Writer) int {
	c := &p.settings.Held
	return map[string]func(stdout, stderr io.Writer) int{
		"held list":    p.withHeld(func(k *keeper) error { return k.list(c.List.OlderThan, c.List.Format == "json") }),
		"held show":    p.withHeld(func(k *keeper) error { return k.show(c.Show.ID, c.Show.Raw) }),
		"held drop":    p.withHeld(func(k *keeper) error { return k.each(&c.Drop, k.drop) }),
		"held release": p.withHeld(func(k *keeper) error { return p.release(k, &c.Release) }),
	}
}

func (k *keeper) complain(err error) {
	fmt.Fprintf(k.stderr, "%s: error: %s\n", programName, printable.Text(err.Error()))
}

// failed notes what went wrong with one message. That something helps later weighs more than that something does not.
func (k *keeper) failed(id string, err error, status int) {
	k.complain(fmt.Errorf("%s: %w", id, err))
	k.status = max(k.status, status)
}

// older returns what is held for longer than that, oldest first.
func (k *keeper) older(than age) ([]*held.Message, error) {
	all, err := k.box.List()
	now := time.Now()
	all = slices.DeleteFunc(all, func(m *held.Message) bool { return now.Sub(m.Held) < time.Duration(than) })
	slices.SortFunc(all, func(a, b *held.Message) int { return cmp.Or(a.Held.Compare(b.Held), strings.Compare(a.ID, b.ID)) })
	return all, err
}

func (k *keeper) list(than age, asJSON bool) error {
	all, err := k.older(than)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		k.status = heldNone
		return nil
	}
	if asJSON {
		return printHeldJSON(k.stdout, all)
	}
	w := tabwriter.NewWriter(k.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tHELD\tSIZE\tFROM\tTO\tREASON\tSUBJECT")
	for _, m := range all {
		to := "?"
		if n := len(m.To); n > 0 {
			if to = m.To[0]; n > 1 {
				to += " +" + strconv.Itoa(n-1)
			}
		}
		reason := m.Reason
		if m.Err != nil {
			reason = m.Err.Error()
		}
		columns := []string{m.ID, m.Held.Format(time.DateTime), strconv.FormatInt(m.Size, 10), "<" + m.From + ">", to, reason, m.Subject}
		for i, text := range columns {
			columns[i] = printable.Text(shorten(text))
		}
		fmt.Fprintln(w, strings.Join(columns, "\t"))
	}
	return w.Flush()
}

// shorten cuts a text to the width of a column. An id is never so long.
func shorten(text string) string {
	const width = 120
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width]) + "..."
	}
	return text
}

// printHeldJSON prints an object on a line for each message.
func printHeldJSON(out io.Writer, all []*held.Message) error {
	to := json.NewEncoder(printable.JSONWriter(out))
	to.SetEscapeHTML(false)
	for _, m := range all {
		object := struct {
			ID      string    `json:"id"`
			Held    time.Time `json:"held"`
			Size    int64     `json:"size"`
			From    string    `json:"from"`
			To      []string  `json:"to"`
			Reason  string    `json:"reason"`
			Subject string    `json:"subject"`
			Error   string    `json:"error,omitempty"`
		}{printable.Text(m.ID), m.Held.UTC(), m.Size, printable.Text(m.From), []string{}, printable.Text(m.Reason), printable.Text(m.Subject), ""}
		for _, rcpt := range m.To {
			object.To = append(object.To, printable.Text(rcpt))
		}
		if m.Err != nil {
			object.Error = m.Err.Error()
		}
		if err := to.Encode(object); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) show(id string, raw bool) error {
	m, err := k.box.Show(id)
	if err != nil {
		k.failed(id, err, statusOf(err))
		return nil
	}
	defer m.Close()
	if raw {
		_, err := io.Copy(k.stdout, m.Content())
		return err
	}
	fmt.Fprintf(k.stdout, "Held:   %s\n", m.Held.Format(time.RFC3339))
	if m.Err != nil {
		fmt.Fprintf(k.stdout, "Error:  %v\n", m.Err)
	} else {
		fmt.Fprintf(k.stdout, "Reason: %s\nFrom:   <%s>\n", printable.Text(m.Reason), printable.Text(m.From))
		for _, rcpt := range m.To {
			fmt.Fprintf(k.stdout, "To:     <%s>\n", printable.Text(rcpt))
		}
	}
	fmt.Fprintln(k.stdout)
	_, err = io.Copy(visible{k.stdout}, m.Content())
	return err
}

// visible passes text on as it is fit for a terminal: line by line, so that only what is in a line is escaped.
type visible struct{ w io.Writer }

func (p visible) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		body, ended := strings.CutSuffix(line, "\n")
		body = strings.ReplaceAll(printable.Text(body), `\x09`, "\t")
		if ended {
			body += "\n"
		}
		if _, err := io.WriteString(p.w, body); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}

// each does something with each message that a command is about. Those of another one are left alone.
func (k *keeper) each(which *heldSome, do func(*held.Message)) error {
	if len(which.IDs) > 0 == (which.OlderThan != nil) {
		return &config.UsageError{Err: errors.New("either ids or --older-than are needed")}
	}
	with := func(id string, m *held.Message, err error) {
		if err != nil {
			k.failed(id, err, statusOf(err))
			return
		}
		do(m)
		_ = m.Close()
	}
	for _, id := range which.IDs {
		m, err := k.box.Take(id)
		with(id, m, err)
	}
	if len(which.IDs) > 0 {
		return nil
	}
	all, err := k.older(*which.OlderThan)
	if err != nil {
		return err
	}
	for _, listed := range all {
		if m, err := listed.Take(); !errors.Is(err, held.ErrNone) { // else another command was faster
			with(listed.ID, m, err)
		}
	}
	return nil
}

func statusOf(err error) int {
	if errors.Is(err, held.ErrNone) {
		return heldNone
	}
	return heldLater
}

func (k *keeper) drop(m *held.Message) {
	if err := m.Remove(); err != nil {
		k.failed(m.ID, err, heldLater)
		return
	}
	fmt.Fprintf(k.stdout, "%s dropped\n", printable.Text(m.ID))
}

// release sends messages on.
func (p *program) release(k *keeper, which *heldSome) error {
	behind, err := p.settings.UpstreamFiles.Load()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(k.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ups, err := newUpstreams(&p.settings, behind, log)
	if err != nil {
		return err
	}
	defer ups.Close()
	r := releaser{ups: ups, timeout: p.settings.UpstreamTimeout, log: log}
	return k.each(which, func(m *held.Message) {
		reply, err := r.send(context.Background(), m)
		switch {
		case err != nil:
			k.failed(m.ID, err, heldNone)
		case !reply.Positive():
			k.failed(m.ID, fmt.Errorf("it stays, as the next hop says %s", reply.String()), refusalStatus(reply))
		default:
			fmt.Fprintf(k.stdout, "%s released: %s\n", printable.Text(m.ID), printable.Text(reply.String()))
			if err := m.Remove(); err != nil {
				k.failed(m.ID, fmt.Errorf("the next hop has it, and it could not be removed: %w", err), heldLater)
			}
		}
	})
}

func refusalStatus(r smtp.Reply) int {
	if r.Temporary() {
		return heldLater
	}
	return heldNone
}
