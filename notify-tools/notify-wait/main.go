// Notify-wait waits until a daemon's events meet a condition; the exit status
// tells the outcome. See notify-wait(1).
package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"postern/internal/notify/listener"
	"postern/internal/printable"
	"postern/notify-tools/tool"
)

const name = "notify-wait"

type settings struct {
	Condition string `arg:"" complete:"idle no-workers" help:"What to wait for: 'free>=2' (also > <= < = !=), idle, no-workers, or the letter of a message."`
	Socket    string `arg:"" optional:"" default:"${socket}" placeholder:"SPEC" help:"Notification socket: a path, or inet:PORT, inet6:PORT, tcp:HOST:PORT (${default})."`

	Timeout     time.Duration `placeholder:"TIME" help:"Leave with status 124 after this time, such as 30s."`
	NoReconnect bool          `help:"Leave with status 1 when the connection is lost or cannot be made."`

	tool.Common

	condition condition
	source    listener.Source
}

func main() { tool.Main(run) }

// run is the whole program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	var s *settings
	return tool.Run(name, stderr, func() (err error) {
		s, err = parse(args, stdout)
		return err
	}, func(messages io.Writer) error { return wait(s, messages) })
}

func parse(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{}
	err := tool.Parse(name, "Waits until a daemon's events meet a condition.", s, args, stdout)
	if err != nil {
		return nil, err
	}
	if s.Timeout < 0 {
		return nil, fmt.Errorf("timeout %v: below zero", s.Timeout)
	}
	if s.condition, err = parseCondition(s.Condition); err != nil {
		return nil, err
	}
	s.source, err = listener.ParseSource(s.Socket)
	return s, err
}

var errMet = errors.New("condition met")

// wait returns nil when the condition is met.
func wait(s *settings, stderr io.Writer) error {
	ctx, cancel := tool.Within(s.Timeout)
	defer cancel()
	f := &listener.Follower{
		Source:   s.source,
		Interest: listener.Interest{Letters: s.condition.letters()},
		Once:     s.NoReconnect,
	}
	err := f.Follow(ctx, func(e listener.Event) error {
		if e.Kind == listener.Down {
			fmt.Fprintf(stderr, "%s: waiting for %s: %s\n", name, e.Source, printable.Text(e.Err.Error()))
		}
		if s.condition.met(&e) {
			return errMet
		}
		return nil
	})
	if errors.Is(err, errMet) {
		return nil
	}
	return err
}
