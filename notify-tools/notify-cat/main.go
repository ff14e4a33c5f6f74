// Notify-cat prints the events of one or more daemons, a line each, for shell
// pipes. See notify-cat(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"postern/internal/logging"
	"postern/internal/notify"
)

const name = "notify-cat"

// exitUnread is the status when nobody reads standard output any more: what a shell says of a program that SIGPIPE
// ended.
const exitUnread = 128 + int(syscall.SIGPIPE)

func main() {
	if os.Getpid() == 1 {
		signal.Ignore(syscall.SIGCHLD) // of a container, where nobody else takes note of the end of what is left behind
	}
	// A message that nobody reads is no reason to end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		waitUnread(syscall.Stdout)
		os.Exit(exitUnread)
	}()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stdout)
	if errors.Is(err, errHelp) {
		return notify.ExitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n%[1]s: hint: %[1]s --help lists the flags\n", name, err)
		return notify.ExitUsage
	}
	messages := logging.Relay(name, stderr)
	defer messages.Close()
	err = listen(s, stdout, messages)
	if errors.Is(err, errUnread) {
		return exitUnread
	}
	if err != nil {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(messages, "%s: error: %s\n", name, notify.Printable(text))
		}
	}
	return notify.ExitStatus(err)
}

// errEnough ends listening when everything asked for has been printed.
var errEnough = errors.New("enough")

var errUnread = errors.New("nobody reads standard output")

var errNoSnapshot = fmt.Errorf("%w as Postern extends it: an original multiplexor has no snapshots", notify.ErrProtocol)

// listen prints events until something ends it; nil means that all that was
// asked for has been printed.
func listen(s *settings, stdout, stderr io.Writer) error {
	ctx := context.Background()
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, notify.ErrTimeout)
		defer cancel()
	}
	var followers []*notify.Follower
	for _, src := range s.sources {
		followers = append(followers, &notify.Follower{Source: src, Interest: s.interest, Once: s.NoReconnect})
	}
	c := &cat{settings: s, out: stdout, log: stderr, known: map[string]bool{}}
	if s.Once {
		return c.once(ctx, followers)
	}
	err := notify.Merge(ctx, followers, c.event)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// once prints the present state of one daemon after the other. One that cannot be asked is no reason to leave out the
// others.
func (c *cat) once(ctx context.Context, followers []*notify.Follower) error {
	var failed []error
	for _, f := range followers {
		f.Once = true
		switch err := f.Follow(ctx, c.event); {
		case errors.Is(err, errUnread), ctx.Err() != nil:
			return err
		case !errors.Is(err, errEnough):
			failed = append(failed, fmt.Errorf("%s: %w", f.Source.Name, err))
		case c.enough():
			return nil
		}
	}
	return errors.Join(failed...)
}

// A cat decides for each event whether it is printed, and when it is enough.
type cat struct {
	*settings
	out, log io.Writer
	known    map[string]bool // sources that were connected before
	printed  int
}

// enough says whether as many messages as asked for have been printed.
func (c *cat) enough() bool { return c.Count > 0 && c.printed >= c.Count }

func (c *cat) event(e notify.Event) error {
	c.printer.learn(&e)
	switch e.Kind {
	case notify.Up, notify.Down:
		return c.connection(&e)
	case notify.Live:
		if c.Once {
			return errEnough
		}
		return nil
	case notify.State:
		if c.NoSnapshot {
			return nil
		}
	}
	counts := e.Kind == notify.Happened || e.Kind == notify.State
	if counts && !c.shown(e.Letter) {
		return nil
	}
	if err := c.print(&e); err != nil {
		return err
	}
	if counts {
		c.printed++
	}
	if c.enough() {
		return errEnough
	}
	return nil
}

// connection reports that a daemon was lost or is there again.
func (c *cat) connection(e *notify.Event) error {
	up := e.Kind == notify.Up
	if up && c.Once && !e.Extended {
		return errNoSnapshot
	}
	again := c.known[e.Source]
	c.known[e.Source] = again || up
	if c.ShowConnection {
		return c.print(e)
	}
	switch {
	case up && again:
		fmt.Fprintf(c.log, "%s: regained %s\n", name, e.Source)
	case !up && again:
		fmt.Fprintf(c.log, "%s: lost %s: %s\n", name, e.Source, notify.Printable(e.Err.Error()))
	case !up:
		fmt.Fprintf(c.log, "%s: waiting for %s: %s\n", name, e.Source, notify.Printable(e.Err.Error()))
		c.known[e.Source] = true
	}
	return nil
}

// print writes the event at once.
func (c *cat) print(e *notify.Event) error {
	line, err := c.printer.line(e)
	if err != nil {
		return err
	}
	_, err = c.out.Write(line)
	if errors.Is(err, syscall.EPIPE) {
		return errUnread
	}
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
