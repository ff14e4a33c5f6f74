// Notify-cat prints the events of one or more daemons, a line each, for shell
// pipes. See notify-cat(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"postern/internal/notify"
)

const name = "notify-cat"

func main() {
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
	err = listen(s, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %s\n", name, notify.Printable(err.Error()))
	}
	return notify.ExitStatus(err)
}

// errEnough ends listening when everything asked for has been printed.
var errEnough = errors.New("enough")

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
	err := notify.Merge(ctx, followers, c.event)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// A cat decides for each event whether it is printed, and when it is enough.
type cat struct {
	*settings
	out, log io.Writer
	known    map[string]bool // sources that were connected before
	complete int             // snapshots
	printed  int
}

func (c *cat) event(e notify.Event) error {
	c.printer.learn(&e)
	switch e.Kind {
	case notify.Up, notify.Down:
		return c.connection(&e)
	case notify.Live:
		if c.complete++; c.Once && c.complete == len(c.sources) {
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
	if c.Count > 0 && c.printed >= c.Count {
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

// print writes the event at once. When standard output is a pipe nobody reads
// any more, SIGPIPE ends the program here.
func (c *cat) print(e *notify.Event) error {
	line, err := c.printer.line(e)
	if err != nil {
		return err
	}
	if _, err := c.out.Write(line); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
