// Notify-cat prints the events of one or more daemons, a line each, for shell
// pipes. See notify-cat(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"postern/internal/notify/listener"
	"postern/internal/printable"
	"postern/notify-tools/tool"
)

const name = "notify-cat"

func main() {
	go func() {
		waitUnread(syscall.Stdout)
		os.Exit(tool.ExitUnread)
	}()
	tool.Main(run)
}

// run is the whole program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	var s *settings
	return tool.Run(name, stderr, func() (err error) {
		s, err = parse(args, stdout)
		return err
	}, func(messages io.Writer) error { return listen(s, stdout, messages) })
}

// errEnough ends listening when everything asked for has been printed.
var errEnough = errors.New("enough")

var errNoSnapshot = fmt.Errorf("%w as Postern extends it: an original multiplexor has no snapshots", listener.ErrProtocol)

// listen prints events until something ends it; nil means that all that was
// asked for has been printed.
func listen(s *settings, stdout, stderr io.Writer) error {
	ctx, cancel := tool.Within(s.Timeout)
	defer cancel()
	var followers []*listener.Follower
	for _, src := range s.sources {
		followers = append(followers, &listener.Follower{Source: src, Interest: s.interest, Once: s.NoReconnect})
	}
	c := &cat{settings: s, out: stdout, log: stderr, known: map[string]bool{}}
	if s.Once {
		return c.once(ctx, followers)
	}
	err := listener.Merge(ctx, followers, c.event)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// once prints the present state of one daemon after the other. One that cannot be asked is no reason to leave out the
// others.
func (c *cat) once(ctx context.Context, followers []*listener.Follower) error {
	var failed []error
	for _, f := range followers {
		f.Once = true
		switch err := f.Follow(ctx, c.event); {
		case errors.Is(err, tool.ErrUnread), ctx.Err() != nil:
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

// enough reports whether as many messages as asked for have been printed.
func (c *cat) enough() bool { return c.Count > 0 && c.printed >= c.Count }

func (c *cat) event(e listener.Event) error {
	c.printer.learn(&e)
	switch e.Kind {
	case listener.Up, listener.Down:
		return c.connection(&e)
	case listener.Live:
		if c.Once {
			return errEnough
		}
		return nil
	case listener.State:
		if c.NoSnapshot {
			return nil
		}
	}
	counts := e.Kind == listener.Happened || e.Kind == listener.State
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
func (c *cat) connection(e *listener.Event) error {
	up := e.Kind == listener.Up
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
		fmt.Fprintf(c.log, "%s: lost %s: %s\n", name, e.Source, printable.Text(e.Err.Error()))
	case !up:
		fmt.Fprintf(c.log, "%s: waiting for %s: %s\n", name, e.Source, printable.Text(e.Err.Error()))
		c.known[e.Source] = true
	}
	return nil
}

// print writes the event at once.
func (c *cat) print(e *listener.Event) error {
	line, err := c.printer.line(e)
	if err != nil {
		return err
	}
	_, err = c.out.Write(line)
	if errors.Is(err, syscall.EPIPE) {
		return tool.ErrUnread
	}
	if err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}
