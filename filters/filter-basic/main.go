// Command filter-basic is a filter worker: it looks at a message as every mail reader might, refuses what is blocked, has
// scanners look at it and finds out whom it is from, as the settings say.
package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"postern/filters/worker"
	"postern/internal/config"
	"postern/internal/privdrop"
)

func main() {
	// There is mail in its memory, and what it starts (scan-command) needs no rights but its own.
	if err := errors.Join(privdrop.Protect(), privdrop.NoNewPrivileges()); err != nil {
		os.Exit(fail(err))
	}
	os.Exit(run(os.Args[1:]))
}

// run reads the arguments, works until standard input ends, and returns the exit status.
func run(args []string) int {
	if slices.Contains(args, "explain") {
		return runExplain(args)
	}
	a, err := worker.ParseArgs(args)
	if err != nil {
		return fail(&config.UsageError{Err: err})
	}
	// The multiplexor names the filter's file with -f: for us these are the settings.
	if a.Filter != "" {
		a.Rest = append([]string{"--config", a.Filter}, a.Rest...)
	}
	var s Settings
	if _, err = s.parse(a.Rest); err != nil {
		return fail(err)
	}
	if a.Mode == worker.None {
		return fail(&config.UsageError{Err: errors.New("-server, -serveru, -test, explain or a working directory is needed; a multiplexor starts this program")})
	}
	return s.filter().Run(a)
}

// runExplain runs the command explain, which people type.
func runExplain(args []string) int {
	var s Settings
	if _, err := s.parse(args); err != nil {
		return fail(err)
	}
	if client := s.Explain.Client; client != "" {
		if _, err := netip.ParseAddr(client); err != nil {
			return fail(&config.UsageError{Err: fmt.Errorf("--client: %q is no IP address", client)})
		}
	}
	return s.explain(os.Stdout, os.Stderr)
}

// fail says what is wrong with arguments or settings and returns the exit status.
func fail(err error) int {
	if !errors.Is(err, config.ErrDone) {
		_, _ = fmt.Fprintf(os.Stderr, "%s: error: %v\n", program, err)
	}
	return config.ExitStatus(err)
}
