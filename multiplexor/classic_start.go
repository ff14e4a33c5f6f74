package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/privdrop"
)

// MIMEDefang's start scripts know more of a start than package daemon does: the command line and its help, the way
// into the background, pid and lock file before anything else, and the texts of what went wrong, with one exit status
// for all. That is done here and in the other files classic_*, around the skeleton, and may be skipped by who wants to
// know what becomes of a request.

// run is the program from its start to its end. It returns the exit status.
func run(args []string) int {
	began := time.Now()
	program := filepath.Base(args[0])
	if program != originalName {
		program = ourName
	}
	syscall.Umask(0o077)
	if err := privdrop.Protect(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1
	}
	// What our parent left open is not for workers. Old kernels cannot do that; then
	// it is as good as our parent was careful.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		fmt.Fprintf(os.Stderr, "%s: refusing to run set-uid or set-gid\n", args[0])
		return 1
	}
	s := &settings{program: program}
	if done, status := s.read(args); done {
		return status
	}
	report, stage := newReporter()
	switch {
	case s.Foreground || stage == 2 || passedListeners():
	case stage == 1:
		if err := startStage(2, args, report.parent); err != nil {
			report.fail(early{err})
			return 1
		}
		return 0
	default:
		return goBackground(args)
	}
	d := &multiplexor{settings: s, began: began, started: report.ready}
	return d.start(args[0], report)
}

// passedListeners reports whether a service manager has opened our sockets: then it
// also wants us in the foreground.
func passedListeners() bool { return os.Getenv("LISTEN_PID") == fmt.Sprint(os.Getpid()) }

// read reads the settings. done says that the program ends with the status.
func (s *settings) read(args []string) (done bool, status int) {
	p, words := parser(s.program), s.arguments(args[1:])
	if s.likeOriginal() {
		p.Stdout = os.Stderr
		for _, a := range words {
			if a == "-v" || a == "--version" {
				fmt.Printf("%s version %s\n", originalName, originalVersion)
				return true, 0
			}
		}
	}
	result, err := p.Parse(s, words)
	switch {
	case errors.Is(err, config.ErrDone) && s.likeOriginal():
		return true, 1
	case errors.Is(err, config.ErrDone):
		return true, 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		if s.likeOriginal() {
			return true, 1
		}
		return true, config.ExitStatus(err)
	}
	if s.Check {
		return true, s.checkAll(args[0], result)
	}
	// A file named relative to where we were is not looked at again.
	if !s.likeOriginal() && (result.File == "" || filepath.IsAbs(result.File)) {
		s.changed = func() ([]string, error) { return s.changedSince(result, words) }
	}
	return false, 0
}

// changedSince reads the settings again and gives the names of those that have changed.
func (s *settings) changedSince(start *config.Result, words []string) ([]string, error) {
	p := parser(s.program)
	p.Stdout = io.Discard
	now, err := p.Parse(&settings{program: s.program}, words)
	if err != nil {
		return nil, err
	}
	return config.Changed(start, now), nil
}

// arguments makes a command line fit for our parser.
func (s *settings) arguments(args []string) []string {
	if s.likeOriginal() {
		return classicArguments(args)
	}
	return attachNegative(args)
}

// start prepares what the skeleton finds done, and has it do the rest. It returns the exit status.
func (d *multiplexor) start(name string, report *reporter) (status int) {
	p := d.program()
	// From now on a signal does not end the program half way: the skeleton sees to it.
	signal.Ignore(syscall.SIGPIPE) // workers expect to inherit that
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, slices.Collect(maps.Keys(p.Signals))...)
	err := d.prepare(name, report)
	if err == nil {
		status, err = daemon.Start(p, d.courseLog(), d.logQueue, daemon.Std{Signals: signals})
	}
	if err != nil {
		d.giveUpNames(func(error) {}) // why the start failed matters more
		report.fail(err)
		status = 1
	}
	_ = d.logQueue.Close() // nothing is left to report it to
	return status
}

// early is an error that the original would have noticed before it went into the background.
type early struct{ error }

// prepare takes the files that say who runs, enters the spool directory and opens the log.
func (d *multiplexor) prepare(name string, report *reporter) (err error) {
	s := d.settings
	if s.Group {
		syscall.Umask(0o027)
	}
	if err := d.files.openEarly(s.Pidfile, s.Lockfile); err != nil {
		if errors.Is(err, errLocked) {
			return err
		}
		return early{fmt.Errorf("%s: %w", name, err)}
	}
	if d.account, err = s.account(name); err != nil {
		return early{err}
	}
	if s.Spool, err = filepath.Abs(s.Spool); err != nil {
		return early{fmt.Errorf("%s: spool directory: %w", name, err)}
	}
	if err := d.asUser(func() error { return os.Chdir(s.Spool) }); err != nil {
		return early{fmt.Errorf("%s: Unable to chdir(%s): %w", name, s.Spool, rootCause(err))}
	}
	if err := d.asUser(func() error { return d.files.acquire(s.Lockfile) }); err != nil {
		return err
	}
	if err := d.openLog(report); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// account is the user whom root becomes, nil if it is not root who starts.
func (s *settings) account(name string) (*privdrop.Account, error) {
	refusal := fmt.Errorf("ERROR: You must not run %s as root.\nUse the -U option to set a non-root user.", s.program)
	if os.Getuid() != 0 {
		return nil, nil
	}
	if s.User == "" {
		return nil, refusal
	}
	a, err := privdrop.Lookup(s.User)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: Unknown user '%s'", name, s.User)
	case a.IsRoot():
		return nil, refusal
	}
	return &a, nil
}

// asUser calls f with the rights of the account that will serve.
func (d *multiplexor) asUser(f func() error) error {
	if d.account == nil {
		return f()
	}
	return privdrop.As(*d.account, f)
}

func rootCause(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}
