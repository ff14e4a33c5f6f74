// Notify-exec runs commands when a daemon announces events. See
// notify-exec(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"postern/internal/notify"
)

const name = "notify-exec"

func main() {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], stop, os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit status. A signal from stop is
// the orderly end, a second one the immediate.
func run(args []string, stop <-chan os.Signal, stdout, stderr io.Writer) int {
	s, err := parse(args, stdout)
	if errors.Is(err, errHelp) {
		return notify.ExitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n%[1]s: hint: %[1]s --help lists the flags\n", name, err)
		return notify.ExitUsage
	}
	err = newEngine(s, stdout, stderr).run(context.Background(), stop)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %s\n", name, notify.Printable(err.Error()))
	}
	return notify.ExitStatus(err)
}
