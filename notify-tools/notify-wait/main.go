// Notify-wait waits until a daemon's events meet a condition; the exit status
// tells the outcome. See notify-wait(1).
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"postern/internal/completion"
	"postern/internal/logging"
	"postern/internal/notify"
	"postern/internal/version"
)

const name = "notify-wait"

type settings struct {
	Condition string `arg:"" complete:"idle no-workers" help:"What to wait for: 'free>=2' (also > <= < = !=), idle, no-workers, or the letter of a message."`
	Socket    string `arg:"" optional:"" default:"${socket}" placeholder:"SPEC" help:"Notification socket: a path, or inet:PORT, inet6:PORT, tcp:HOST:PORT (${default})."`

	Timeout     time.Duration `placeholder:"TIME" help:"Leave with status 124 after this time, such as 30s."`
	NoReconnect bool          `help:"Leave with status 1 when the connection is lost or cannot be made."`

	condition condition
	source    notify.Source

	Version kong.VersionFlag `help:"Print the version."`
}

func main() {
	if os.Getpid() == 1 {
		signal.Ignore(syscall.SIGCHLD) // of a container, where nobody else takes note of the end of what is left behind
	}
	// A message that nobody reads does not change the outcome.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
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
	err = wait(s, messages)
	if err != nil {
		fmt.Fprintf(messages, "%s: error: %s\n", name, notify.Printable(err.Error()))
	}
	return notify.ExitStatus(err)
}

// errHelp says that --help or --version has printed what was asked for.
var errHelp = errors.New("help printed")

func parse(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{}
	helped := false
	k, err := kong.New(s, kong.Name(name), kong.Writers(stdout, stdout),
		kong.Description("Waits until a daemon's events meet a condition."),
		kong.Vars{"socket": notify.DefaultSocket, "version": version.Line(name)}, kong.Exit(func(int) { helped = true }))
	if err != nil {
		return nil, err
	}
	if asked, err := completion.Print(stdout, k, args); asked {
		return nil, cmp.Or(err, errHelp)
	}
	_, err = k.Parse(args)
	if helped {
		return nil, errHelp
	}
	if err != nil {
		return nil, err
	}
	if s.Timeout < 0 {
		return nil, fmt.Errorf("timeout %v: below zero", s.Timeout)
	}
	if s.condition, err = parseCondition(s.Condition); err != nil {
		return nil, err
	}
	s.source, err = notify.ParseSource(s.Socket)
	return s, err
}

var errMet = errors.New("condition met")

// wait returns nil when the condition is met.
func wait(s *settings, stderr io.Writer) error {
	ctx := context.Background()
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, notify.ErrTimeout)
		defer cancel()
	}
	f := &notify.Follower{
		Source:   s.source,
		Interest: notify.Interest{Letters: s.condition.letters()},
		Once:     s.NoReconnect,
	}
	err := f.Follow(ctx, func(e notify.Event) error {
		if e.Kind == notify.Down {
			fmt.Fprintf(stderr, "%s: waiting for %s: %s\n", name, e.Source, notify.Printable(e.Err.Error()))
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
