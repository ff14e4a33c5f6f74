package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/internal/config"
	"postern/internal/mxproto"
	"postern/internal/printable"
	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
)

// ReplayCommand is the command line of replay.
type ReplayCommand struct {
	Paths    []string `arg:"" name:"path" placeholder:"PATH" help:"A directory that was kept, a directory of such, or a file with a message."`
	Parallel int      `name:"parallel" default:"4" placeholder:"N" help:"How many are scanned at a time."`
	Ignore   []string `name:"ignore" sep:"none" placeholder:"FIELD" help:"Header field that may differ. May be given several times."`
	Quiet    bool     `name:"quiet" help:"Print the last two lines only, and no progress."`
	Client   string   `name:"client" default:"127.0.0.1" placeholder:"ADDRESS" help:"Of messages in files: address of the client."`
	Helo     string   `name:"helo" default:"client.invalid" placeholder:"NAME" help:"What it said in EHLO."`
	From     string   `name:"from" default:"<>" placeholder:"ADDRESS" help:"Sender."`
	To       []string `name:"to" sep:"none" placeholder:"ADDRESS" help:"Recipient. May be given several times. Default: postmaster."`
}

// Exit statuses of replay, beside 0 and those of wrong settings.
const (
	replayDiffers = 1  // a verdict is not that of the last time
	replayLater   = 75 // there was no verdict about a message
)

// replay has copies of messages scanned again, and compares.
func (p *program) replay(stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := newReplay(&p.settings, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return config.ExitStatus(err)
	}
	defer r.close()
	if _, err := r.mx.Ask(ctx, mxproto.VerbFree); err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return replayLater
	}
	return r.run(ctx)
}

// replay is one run of the command.
type replay struct {
	*ReplayCommand
	filter         *filter.Filter
	mx             *mxproto.Client
	stdout, stderr io.Writer
	host           string // ours
	from           smtp.Path
	to             []filter.Recipient
	messages       []replayed

	mu    sync.Mutex // of what follows
	done  int
	same  int
	fresh int // without a verdict to compare with
	other int // that differ
	lost  int // without a verdict
	times []replayTime
}

// replayed is a message that is to be scanned again.
type replayed struct {
	name string // its path
	kept bool   // it is a directory
}

// replayTime is how long a scan took.
type replayTime struct {
	took time.Duration
	name string
}

func newReplay(s *settings, stdout, stderr io.Writer) (*replay, error) {
	c := &s.Replay
	if s.Multiplexor == "" {
		return nil, &config.Error{Key: "multiplexor", Err: errors.New("is not set")}
	}
	if c.Parallel < 1 {
		return nil, &config.UsageError{Err: errors.New("--parallel must be 1 or more")}
	}
	r := &replay{ReplayCommand: c, stdout: stdout, stderr: stderr, host: s.host}
	if err := r.envelope(); err != nil {
		return nil, &config.UsageError{Err: err}
	}
	for _, path := range c.Paths {
		if err := r.find(path); err != nil {
			return nil, &config.UsageError{Err: err}
		}
	}
	var err error
	if r.filter, r.mx, err = newFilter(s); err != nil {
		return nil, err
	}
	if err := r.filter.Spool.Open(); err != nil {
		return nil, &config.Error{Err: err}
	}
	return r, nil
}

func (r *replay) close() {
	r.mx.Close()
	_ = r.filter.Spool.Close()
}

// envelope reads the addresses for messages in files.
func (r *replay) envelope() (err error) {
	if r.from, err = explainAddress(r.From, smtp.CheckRFC); err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	to := r.To
	if len(to) == 0 {
		to = []string{"postmaster"}
	}
	for _, address := range to {
		path, err := explainAddress(address, smtp.CheckRFC)
		if err != nil || path.Null() {
			return fmt.Errorf("--to: %q is no address", address)
		}
		r.to = append(r.to, filter.Recipient{Path: path})
	}
	return nil
}

// find notes the messages that a path stands for.
func (r *replay) find(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		r.messages = append(r.messages, replayed{name: path})
		return nil
	}
	if hasCommands(path) {
		r.messages = append(r.messages, replayed{path, true})
		return nil
	}
	within, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	found := false
	for _, e := range within {
		if dir := filepath.Join(path, e.Name()); hasCommands(dir) {
			r.messages, found = append(r.messages, replayed{dir, true}), true
		}
	}
	if !found {
		return fmt.Errorf("%s: there is no COMMANDS in it, nor in a directory below", path)
	}
	return nil
}

func hasCommands(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "COMMANDS"))
	return err == nil
}

// run scans all messages and returns the exit status.
func (r *replay) run(ctx context.Context) int {
	tending, stop := context.WithCancel(ctx)
	var beside, scanning sync.WaitGroup
	beside.Go(func() { r.filter.Spool.Tend(tending, slog.New(slog.DiscardHandler)) })
	beside.Go(func() { r.progress(tending) })
	next := make(chan replayed)
	for range min(r.Parallel, len(r.messages)) {
		scanning.Go(func() {
			for m := range next {
				r.message(ctx, m)
			}
		})
	}
	began := time.Now()
	for i, m := range r.messages {
		select {
		case next <- m:
			continue
		case <-ctx.Done():
			r.skip(len(r.messages) - i)
		}
		break
	}
	close(next)
	scanning.Wait()
	stop()
	beside.Wait()
	r.sum(time.Since(began))
	switch {
	case r.other > 0:
		return replayDiffers
	case r.lost > 0:
		return replayLater
	}
	return 0
}

// skip counts messages that are not scanned any more.
func (r *replay) skip(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += n
}

// message scans one message, and prints what came of it if that is worth a line.
func (r *replay) message(ctx context.Context, m replayed) {
	text, differs, took, err := r.scan(ctx, m)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	switch {
	case err != nil:
		r.lost++
		text = "failed: " + err.Error()
	case differs != nil:
		r.other++
		text = "differs: " + strings.Join(differs, "; ")
	case text == "":
		r.same++
	default:
		r.fresh++
	}
	if err == nil {
		r.times = append(r.times, replayTime{took, m.name})
	}
	if text != "" && !r.Quiet {
		fmt.Fprintln(r.stdout, printable.Text(m.name+": "+text))
	}
}

// scan scans one message. It returns what the filter wants if that was not known, or how it differs from the last time.
func (r *replay) scan(ctx context.Context, m replayed) (wants string, differs []string, took time.Duration, err error) {
	files, qid, err := r.open(m)
	if err != nil {
		return "", nil, 0, err
	}
	defer files.Close()
	after, took, err := r.filter.Rescan(ctx, qid, files)
	if err != nil {
		return "", nil, took, err
	}
	defer after.Close()
	now, err := filter.WishesOf(after, r.Ignore)
	if err != nil {
		return "", nil, took, err
	}
	before, err := filter.WishesOf(files, r.Ignore)
	if err != nil { // there was none, or the scan had failed
		return now.String(), nil, took, nil
	}
	return "", now.Differences(before), took, nil
}

// open returns the files of a message, and its queue id.
func (r *replay) open(m replayed) (files *workdir.Snapshot, qid string, err error) {
	if !m.kept {
		qid = workdir.NewQueueID()
		files, err = r.write(m.name, qid)
		return files, qid, err
	}
	if files, err = workdir.OpenSnapshot(m.name); err != nil {
		return nil, "", err
	}
	if qid = files.QueueID(); qid == "" {
		qid = workdir.NewQueueID()
	}
	return files, qid, nil
}

// write writes a message from a file as if it had come from a client.
func (r *replay) write(name, qid string) (*workdir.Snapshot, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m, err := r.filter.Begin(filter.Client{Session: "replay", IP: r.Client, Helo: r.Helo, HasHelo: true, Listener: listenSMTP, MyName: r.host}, qid, r.from, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Remove() }()
	for _, rcpt := range r.to {
		if err := m.Took(rcpt); err != nil {
			return nil, err
		}
	}
	if _, err := io.Copy(&crlf{w: m}, file); err != nil {
		return nil, err
	}
	if err := m.Finish(); err != nil {
		return nil, err
	}
	return m.Snapshot()
}

// crlf writes a text with CR LF at the end of its lines, however they end.
type crlf struct {
	w  io.Writer
	cr bool // the last byte was CR
}

func (c *crlf) Write(text []byte) (int, error) {
	for line := range bytes.Lines(text) {
		plain, ended := bytes.CutSuffix(line, []byte{'\n'})
		if ended && (bytes.HasSuffix(plain, []byte{'\r'}) || len(plain) == 0 && c.cr) {
			ended, plain = false, line
		}
		c.cr = bytes.HasSuffix(plain, []byte{'\r'})
		if _, err := c.w.Write(plain); err != nil {
			return 0, err
		}
		if ended {
			if _, err := io.WriteString(c.w, "\r\n"); err != nil {
				return 0, err
			}
		}
	}
	return len(text), nil
}

// progress tells on standard error how far it is.
func (r *replay) progress(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for !r.Quiet {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.mu.Lock()
			fmt.Fprintf(r.stderr, "%d of %d scanned, %d differ, %d failed\n", r.done, len(r.messages), r.other, r.lost)
			r.mu.Unlock()
		}
	}
}

// sum prints the last two lines.
func (r *replay) sum(took time.Duration) {
	fmt.Fprintf(r.stdout, "messages: %d, same: %d, differ: %d, nothing to compare with: %d, failed: %d\n", len(r.messages), r.same, r.other, r.fresh, r.lost)
	if len(r.times) == 0 {
		return
	}
	slices.SortFunc(r.times, func(a, b replayTime) int { return int(a.took - b.took) })
	at := func(percent int) string {
		return r.times[(len(r.times)-1)*percent/100].took.Round(time.Microsecond).String()
	}
	slowest := r.times[len(r.times)-1]
	fmt.Fprintf(r.stdout, "time: %s, p50: %s, p99: %s, slowest: %s (%s)\n", took.Round(time.Millisecond), at(50), at(99),
		slowest.took.Round(time.Microsecond), printable.Text(slowest.name))
}
