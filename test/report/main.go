// Report runs `go test -json` for `make test` and tells what came of it: each
// package as it ends, the output of what failed, then one closing table of what
// the run left out, and as the last lines go test's own summary of each package.
//
//	report [-left-out WHAT:WHY]... [-failed STAGE]... go test -json ./...
//
// It exits 1 if a test, a package or one of the named earlier stages failed, or
// if anything was left out under CI=true.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	var leftOut, failed list
	flag.Var(&leftOut, "left-out", "an earlier stage that was left out, `WHAT:WHY`")
	flag.Var(&failed, "failed", "an earlier `STAGE` that failed")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(64)
	}
	r := report{out: os.Stdout, failedStages: failed}
	for _, l := range leftOut {
		what, why, _ := strings.Cut(l, ":")
		r.leftOut = append(r.leftOut, omission{what, strings.TrimSpace(why)})
	}
	if err := r.run(flag.Args()); err != nil {
		r.failedStages = append(r.failedStages, err.Error())
	}
	if !r.close(os.Getenv("CI") == "true") {
		os.Exit(1)
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// run starts go test and reads its events to their end.
func (r *report) run(command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := r.read(events)
	err = cmd.Wait()
	// Exit status 1 says that a test failed, which the events have told.
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 && r.failures > 0 {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command[:min(2, len(command))], " "), err)
	}
	return readErr
}

// read takes the events of `go test -json`, one JSON object a line.
func (r *report) read(events io.Reader) error {
	dec := json.NewDecoder(events)
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			io.Copy(io.Discard, events) // let go test end
			return fmt.Errorf("read test events: %w", err)
		}
		r.take(e)
	}
}
