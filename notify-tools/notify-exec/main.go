// Notify-exec runs commands when a daemon announces events. See
// notify-exec(1).
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"postern/notify-tools/tool"
)

const name = "notify-exec"

func main() {
	if os.Getpid() == 1 {
		os.Exit(asFirst())
	}
	os.Exit(run(os.Args[1:], signals(), os.Stdout, os.Stderr))
}

// signals are those that ask for the end. A message that nobody reads is no reason to end without --undo: SIGPIPE is
// caught, as ignoring it would be passed on to the commands.
func signals() <-chan os.Signal {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, ending()...)
	return stop
}

// ending are the signals that end us. What nohup(1), or a shell that puts us in the background, has had ignored stays
// so. Go knows that of SIGHUP and SIGINT only; shells do with SIGQUIT as with SIGINT.
func ending() []os.Signal {
	list := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	if signal.Ignored(syscall.SIGINT) {
		signal.Ignore(syscall.SIGQUIT)
		return list
	}
	return append(list, syscall.SIGINT, syscall.SIGQUIT)
}

// run is the whole program; it returns the exit status. A signal from stop is
// the orderly end, a second one the immediate.
func run(args []string, stop <-chan os.Signal, stdout, stderr io.Writer) int {
	var s *settings
	return tool.Run(name, stderr, func() (err error) {
		s, err = parse(args, stdout)
		return err
	}, func(messages io.Writer) error {
		e := newEngine(s, stdout, stderr)
		e.messages = messages
		return e.run(context.Background(), stop)
	})
}
