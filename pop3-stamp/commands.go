package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"postern/internal/config"
	"postern/internal/netlist"
	"postern/internal/percent"
	"postern/internal/printable"
	"postern/internal/stamp"
)

// Exit statuses of the commands, beside 0 and those of wrong settings.
const (
	exitNone  = 1  // there is no such stamp
	exitLater = 75 // the place for stamps cannot be asked, EX_TEMPFAIL
)

// whose says which stamps a command is about: those that meet all that is given.
type whose struct {
	Client string `help:"Address of the client, or a network." placeholder:"ADDRESS" env:"-"`
	Login  string `help:"Name of the user." placeholder:"NAME" env:"-"`
}

// written is what a new stamp says.
type written struct {
	Client string `help:"Address of the client." placeholder:"ADDRESS" required:"" env:"-"`
	Login  string `help:"Name of the user, for the record." placeholder:"NAME" env:"-"`
	Server string `help:"Server the user logged in to, for the record." placeholder:"NAME" env:"-"`
}

// form is how stamps are printed.
type form struct {
	Format string `help:"How stamps are printed: table, or json with an object on a line." enum:"table,json" default:"table" env:"-"`
}

// commands are what is done instead of serving.
type commands struct {
	Serve struct{} `cmd:"" default:"1" hidden:""`
	Add   written  `cmd:"" help:"Write a stamp and exit: for login scripts of mail servers."`
	Touch written  `cmd:"" help:"The same as add."`
	Look  struct {
		whose `embed:""`
		form  `embed:""`
	} `cmd:"" name:"check" help:"Print the fresh stamps of a client or user, and exit: 0 if there is one, else 1."`
	List struct {
		whose `embed:""`
		form  `embed:""`
	} `cmd:"" help:"Print all fresh stamps, or those of a client, network or user, and exit: 0 if there is one, else 1."`
	Revoke struct {
		whose `embed:""`
	} `cmd:"" help:"Remove the stamps of a client, network or user, say how many, and exit."`
	Follow following `cmd:"" help:"Write a stamp for each login that a server's log tells of, until SIGTERM."`
	Expire struct {
		Age time.Duration `help:"Remove stamps older than this; 0 is twice clientip-maxage." default:"0s" env:"-"`
	} `cmd:"" help:"Remove old stamps, say how many, and exit."`
}

// runs are the commands by their names.
func (s *settings) runs() map[string]func(stdout, stderr io.Writer) int {
	ctx := context.Background()
	with := func(do func(*place, *bufio.Writer) error) func(stdout, stderr io.Writer) int {
		return func(stdout, stderr io.Writer) int { return s.withPlace(stdout, stderr, do) }
	}
	add := func(w *written) func(*place, *bufio.Writer) error {
		return func(p *place, _ *bufio.Writer) error { return w.run(ctx, p) }
	}
	return map[string]func(stdout, stderr io.Writer) int{
		"add":   with(add(&s.Add)),
		"touch": with(add(&s.Touch)),
		"check": with(func(p *place, out *bufio.Writer) error {
			if s.Look.Client == "" && s.Look.Login == "" {
				return &config.UsageError{Err: errors.New("check: --client or --login is needed")}
			}
			return s.Look.print(ctx, p, out, s.Look.Format)
		}),
		"list": with(func(p *place, out *bufio.Writer) error { return s.List.print(ctx, p, out, s.List.Format) }),
		"revoke": with(func(p *place, out *bufio.Writer) error {
			if s.Revoke.Client == "" && s.Revoke.Login == "" {
				return &config.UsageError{Err: errors.New("revoke: --client or --login is needed")}
			}
			return s.Revoke.revoke(ctx, p, out)
		}),
		"follow": func(stdout, stderr io.Writer) int {
			return s.withPlace(stdout, stderr, func(p *place, _ *bufio.Writer) error { return s.Follow.run(p, stderr) })
		},
		"expire": with(func(p *place, out *bufio.Writer) error { return s.expire(ctx, p, out) }),
	}
}

// errNone is the error of a command that found no stamp; nothing is said of it.
var errNone = errors.New("no such stamp")

// withPlace opens the place for stamps for a command and gives its exit status.
func (s *settings) withPlace(stdout, stderr io.Writer, do func(*place, *bufio.Writer) error) int {
	options, err := s.Store.Load()
	var p *place
	if err == nil {
		p, err = s.openPlace(options, slog.New(slog.DiscardHandler))
	}
	if err == nil && p == nil {
		err = errors.New("neither clientip-dir nor clientip-store is set")
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return config.ExitSettings
	}
	defer p.close()
	out := bufio.NewWriter(stdout)
	err = do(p, out)
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	var usage *config.UsageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNone):
		return exitNone
	}
	_, _ = fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
	if errors.As(err, &usage) {
		return config.ExitUsage
	}
	return exitLater
}

func (w *written) run(ctx context.Context, p *place) error {
	addr, err := parseAddr(w.Client)
	if err != nil {
		return err
	}
	return p.Touch(ctx, addr, w.Login, w.Server)
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return addr, &config.UsageError{Err: fmt.Errorf("client %q is no address", text)}
	}
	return addr.Unmap().WithZone(""), nil
}

// each calls f for the stamps. One address costs one look; all else goes through the list.
func (w *whose) each(ctx context.Context, p *place, f func(stamp.Stamp) error) error {
	var failed error
	use := func(st stamp.Stamp) bool {
		if w.Login == "" || st.User == w.Login {
			failed = f(st)
		}
		return failed == nil
	}
	network := netip.Prefix{}
	if w.Client != "" {
		nets, err := netlist.Parse([]string{w.Client})
		if err != nil || len(nets) != 1 {
			return &config.UsageError{Err: fmt.Errorf("client %q is neither an address nor a network", w.Client)}
		}
		network = nets[0]
	}
	if network.IsValid() && network.IsSingleIP() {
		st, ok, err := p.Look(ctx, network.Addr())
		if err != nil || !ok {
			return err
		}
		use(st)
		return failed
	}
	err := p.List(ctx, func(st stamp.Stamp) bool { return network.IsValid() && !network.Contains(st.Addr) || use(st) })
	return errors.Join(err, failed)
}

// print prints the stamps.
func (w *whose) print(ctx context.Context, p *place, out *bufio.Writer, format string) error {
	found := false
	err := w.each(ctx, p, func(st stamp.Stamp) error {
		if !found && format == "table" {
			_, _ = fmt.Fprintf(out, tableLine, "ADDRESS", "AGE", "USER", "SERVER")
		}
		found = true
		return printStamp(out, st, format)
	})
	if err == nil && !found {
		return errNone
	}
	return err
}

const tableLine = "%-39s %8s  %-30s %s\n"

func printStamp(out io.Writer, st stamp.Stamp, format string) error {
	age := max(0, time.Since(st.Written)).Truncate(time.Second)
	if format == "table" {
		_, err := fmt.Fprintf(out, tableLine, st.Addr, age, shown(st.User), shown(st.Server))
		return err
	}
	return json.NewEncoder(printable.JSONWriter(out)).Encode(struct {
		Address string    `json:"address"`
		User    string    `json:"user"`
		Server  string    `json:"server"`
		Written time.Time `json:"written"`
		Age     int       `json:"age"`
	}{st.Addr.String(), st.User, st.Server, st.Written.UTC().Truncate(time.Second), int(age.Seconds())})
}

// shown makes a text that came from outside one word.
func shown(text string) string {
	if text == "" {
		return "-"
	}
	return percent.EncodeCommand(text)
}

// revoke removes the stamps.
func (w *whose) revoke(ctx context.Context, p *place, out *bufio.Writer) error {
	n := 0
	err := w.each(ctx, p, func(st stamp.Stamp) error {
		gone, err := p.Remove(ctx, st.Addr)
		if gone {
			n++
		}
		return err
	})
	if err == nil {
		_, err = fmt.Fprintf(out, "%d removed\n", n)
	}
	return err
}

// expire removes old stamps.
func (s *settings) expire(ctx context.Context, p *place, out *bufio.Writer) error {
	age := s.Expire.Age
	if age <= 0 {
		age = 2 * s.ClientipMaxage
	}
	n := 0
	if err := p.Expire(ctx, age, func(netip.Addr) { n++ }); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d removed\n", n)
	return err
}
