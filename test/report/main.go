// Report runs `go test -json` for `make test` and tells what comes of it: while
// it runs each package as it ends, what is running, and the output of what
// failed; then the slowest tests, a table of what the run left out, and as the
// last lines go test's own summary of each package.
//
//	stages | report [-checks] [-packages N] [-failures FILE] [-left-out WHAT:WHY]... [-failed STAGE]... go test -json ./...
//
// What stages that run beside the tests write is shown as it comes. Their lines
// "FAILED: STAGE", and "Note: TEXT", which is no failure, not even under CI=true,
// are told at the end. With -checks they must say that all have ended.
//
// It exits 1 if a test, a package or a stage failed, or if anything was left out
// under CI=true. A test that a quick run leaves to the full one is not left out.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	var leftOut, failed list
	flag.Var(&leftOut, "left-out", "an earlier stage that was left out, `WHAT:WHY`")
	flag.Var(&failed, "failed", "an earlier `STAGE` that failed")
	checks := flag.Bool("checks", false, "there are checks beside the tests")
	packages := flag.Int("packages", 0, "how many packages there are")
	failures := flag.String("failures", "", "a `FILE` to append a line to for each test that failed")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(64)
	}
	shown := newScreen(os.Stdout)
	heedSignals()
	r := report{out: shown, failedStages: failed, total: *packages}
	for _, l := range leftOut {
		what, why, _ := strings.Cut(l, ":")
		r.leftOut = append(r.leftOut, omission{what, strings.TrimSpace(why)})
	}
	beside := make(chan stages, 1)
	go func() { beside <- readStages(os.Stdin, shown) }()
	if err := r.run(flag.Args(), shown); err != nil {
		r.failedStages = append(r.failedStages, err.Error())
	}
	if len(beside) == 0 {
		r.say("only the checks go on")
	}
	s := <-beside
	r.failedStages, r.notes = append(r.failedStages, s.failed...), s.notes
	if *checks && !s.ended {
		r.failedStages = append(r.failedStages, "checks: they were broken off")
	}
	if err := r.note(*failures); err != nil {
		r.failedStages = append(r.failedStages, err.Error())
	}
	if !r.close(os.Getenv("CI") == "true") {
		os.Exit(1)
	}
}

// heedSignals has the tests begin with signals as they are by default. Where a
// run is in the background, or under nohup, some are ignored, which is inherited,
// and tests that send them would wait for nothing. Here they still do nothing.
func heedSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// note appends what failed to a file, for whoever runs the tests many times.
func (r *report) note(file string) error {
	if file == "" || len(r.failures) == 0 {
		return nil
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("note failures: %w", err)
	}
	_, err = io.WriteString(f, strings.Join(r.failures, "\n")+"\n")
	return errors.Join(err, f.Close())
}

// run starts go test, reads its events to their end, and shows the state of
// things meanwhile.
func (r *report) run(command []string, shown *screen) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = shown
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	events := make(chan event)
	read := make(chan error, 1)
	go func() {
		read <- decode(stdout, events)
		close(events)
	}()
	r.follow(events, shown)
	err = cmd.Wait()
	// Exit status 1 says that a test failed, which the events have told.
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 && r.failed > 0 {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(command[:min(2, len(command))], " "), err)
	}
	return <-read
}

// follow takes the events as they come.
func (r *report) follow(events <-chan event, shown *screen) {
	tick := time.NewTicker(onTerminal)
	defer tick.Stop()
	defer shown.clear()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			r.take(e)
		case now := <-tick.C:
			shown.status(r.status(now), now)
		}
	}
}

// decode reads the events of `go test -json`, one JSON object a line.
func decode(from io.Reader, events chan<- event) error {
	dec := json.NewDecoder(from)
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			io.Copy(io.Discard, from) // let go test end
			return fmt.Errorf("read test events: %w", err)
		}
		events <- e
	}
}
