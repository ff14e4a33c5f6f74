// Command filter-basic is a filter worker: it refuses messages with attachments whose names are blocked, and the test
// messages that exist for spam and virus filters, and adds a header field to the others.
package main

import (
	"errors"
	"fmt"
	"os"

	"postern/filters/worker"
	"postern/internal/config"
)

func main() { os.Exit(run(os.Args[1:])) }

// run reads the arguments, works until standard input ends, and returns the exit status.
func run(args []string) int {
	a, err := worker.ParseArgs(args)
	if err == nil {
		var s Settings
		// The multiplexor names the filter's file with -f: for us these are the settings.
		if a.Filter != "" {
			a.Rest = append([]string{"--config", a.Filter}, a.Rest...)
		}
		err = s.parse(a.Rest)
		if err == nil && a.Mode == worker.None {
			err = &config.UsageError{Err: errors.New("-server, -serveru, -test or a working directory is needed; a multiplexor starts this program")}
		}
		if err == nil {
			return s.filter().Run(a)
		}
	} else {
		err = &config.UsageError{Err: err}
	}
	if !errors.Is(err, config.ErrDone) {
		_, _ = fmt.Fprintf(os.Stderr, "%s: error: %v\n", program, err)
	}
	return config.ExitStatus(err)
}
