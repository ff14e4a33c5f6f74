package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/evloop"
	"postern/internal/listen"
	"postern/internal/logging"
	"postern/internal/metrics"
	"postern/internal/mxproto"
	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/privdrop"
	"postern/multiplexor/pool"
	"postern/multiplexor/process"
)

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
			report.fail(err.Error(), true)
			return 1
		}
		return 0
	default:
		return goBackground(args)
	}
	d := &multiplexor{settings: s, report: report, began: began, name: args[0], manager: daemon.NewNotifier(), signals: make(chan os.Signal, 8)}
	defer d.manager.Close()
	return d.run()
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
		if err := result.Print(os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "%s: print settings: %v\n", args[0], err)
			return true, 1
		}
		if err := s.check(); err != nil && !s.likeOriginal() {
			fmt.Fprintf(os.Stderr, "%s: error: %v\n", args[0], err)
			return true, config.ExitSettings
		}
		if text := s.quarantineLost(originalQuarantine); text != "" && !s.likeOriginal() {
			fmt.Fprintf(os.Stderr, "%s: warning: %s\n", args[0], text)
		}
		return true, s.checkDirectories(args[0])
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

// multiplexor is the program from its start to its end.
type multiplexor struct {
	settings *settings
	report   *reporter
	began    time.Time
	name     string // argv[0], for messages

	manager  *daemon.Notifier // the service manager
	signals  chan os.Signal
	files    ownFiles
	log      *slog.Logger
	logQueue *logging.Queue
	sockets  []socket
	others   listen.Set  // notify and metrics, which have goroutines of their own
	answers  atomic.Bool // requests

	work      *workQueue
	lines     *logQueue
	stats     *statLog
	loop      *evloop.Loop
	hub       *hub.Hub
	pool      *pool.Pool
	server    *server
	starter   *process.Starter
	forks     *process.ForkServers // nil without --fork-server
	listeners []*evloop.Listener
	status    int

	statusTimer evloop.Timer
	reloading   bool // the service manager waits for the end of a reread
}

// run starts, serves and ends.
func (d *multiplexor) run() int {
	// From now on a signal does not end the program half way: it is seen to when the loop turns.
	signal.Ignore(syscall.SIGPIPE) // workers expect to inherit that
	signal.Notify(d.signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(d.signals)
	if text, early := d.prepare(); text != "" {
		d.giveUpNames(func(error) {}) // why the start failed matters more
		d.report.fail(text, early)
		return 1
	}
	if err := d.assemble(); err != nil {
		d.report.fail(err.Error(), false)
		d.close()
		return 1
	}
	d.serve()
	d.close()
	return d.status
}

// prepare does what needs root, opens the sockets, and becomes the user. A text
// says why that failed; early, whether the original would have noticed before it
// went into the background.
func (d *multiplexor) prepare() (text string, early bool) {
	var err error
	s := d.settings
	if s.Group {
		syscall.Umask(0o027)
	}
	if err := d.files.openEarly(s.Pidfile, s.Lockfile); err != nil {
		if errors.Is(err, errLocked) {
			return err.Error(), false
		}
		return fmt.Sprintf("%s: %v", d.name, err), true
	}
	account, text := d.account()
	if text != "" {
		return text, true
	}
	if s.Spool, err = filepath.Abs(s.Spool); err != nil {
		return fmt.Sprintf("%s: spool directory: %v", d.name, err), true
	}
	asUser := func(f func() error) error {
		if account == nil {
			return f()
		}
		return privdrop.As(*account, f)
	}
	if err := asUser(func() error { return os.Chdir(s.Spool) }); err != nil {
		return fmt.Sprintf("%s: Unable to chdir(%s): %v", d.name, s.Spool, rootCause(err)), true
	}
	if err := asUser(func() error { return d.files.acquire(s.Lockfile) }); err != nil {
		return err.Error(), false
	}
	if err := d.openLog(); err != nil {
		return fmt.Sprintf("%s: %v", d.name, err), false
	}
	// As root, who can bind where the user cannot.
	if err := d.openSockets(account); err != nil {
		return err.Error(), false
	}
	if err := d.becomeUser(account); err != nil {
		return fmt.Sprintf("%s: %v", d.name, err), true
	}
	return "", false
}

// becomeUser gives up root, if there is an account for that, and makes sure, now that the ids are the last ones, that nobody
// but root looks into the process, and that no worker gains rights.
func (d *multiplexor) becomeUser(account *privdrop.Account) (err error) {
	if account != nil {
		err = privdrop.Drop(d.settings.User, false)
	}
	if err == nil {
		err = privdrop.Protect()
	}
	if err == nil && d.settings.NoNewPrivs {
		err = privdrop.NoNewPrivileges()
	}
	return err
}

func rootCause(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}

// account is the user whom root becomes, nil if it is not root who starts.
func (d *multiplexor) account() (account *privdrop.Account, problem string) {
	s := d.settings
	const refusal = "ERROR: You must not run %s as root.\nUse the -U option to set a non-root user."
	if os.Getuid() != 0 {
		return nil, ""
	}
	if s.User == "" {
		return nil, fmt.Sprintf(refusal, s.program)
	}
	a, err := privdrop.Lookup(s.User)
	switch {
	case err != nil:
		return nil, fmt.Sprintf("%s: Unknown user '%s'", d.name, s.User)
	case a.IsRoot():
		return nil, fmt.Sprintf(refusal, s.program)
	}
	return &a, ""
}

// assemble makes the parts and connects them.
func (d *multiplexor) assemble() (err error) {
	s := d.settings
	if d.loop, err = evloop.New(); err != nil {
		return err
	}
	d.work = newWorkQueue()
	d.lines = &logQueue{log: d.log, queue: d.logQueue, work: d.work, events: s.LogEvents}
	d.openStats()
	if len(d.others["notify"]) > 0 {
		letters := "BFRSUYZ"
		if !s.likeOriginal() {
			letters += string([]byte{notify.LetterWorking, notify.LetterFault})
		}
		options, err := s.Access.Options(letters, d.log)
		if err != nil {
			return err
		}
		d.hub = hub.New(options)
		d.hub.Seed(notify.Message{Letter: notify.LetterFree, Text: strconv.Itoa(int(s.Max))}, notify.Message{Letter: notify.LetterWorking, Text: "0"})
	}
	pr := &process.Program{Path: s.Worker, Filter: s.Filter, StatusPipe: s.Pipe,
		AddressSpace: int64(s.MaxAS) * 1024, Resident: int64(s.MaxRSS) * 1024, Env: d.workerEnv()}
	d.starter = process.NewStarter(d.loop, pr, int(s.Max))
	system := pool.Processes{Start: d.starter.Start, Wall: time.Now}
	if s.Fork {
		d.forks = process.NewForkServers(d.loop, pr, system.Start, d.lines, s.LogEvents)
		system = pool.Processes{Start: d.forks.Start, Forget: d.forks.Forget, Revert: d.forks.Revert, Wall: time.Now}
	}
	d.pool = pool.New(s.limits(), &d.loop.Timers, system, d.lines)
	if d.stats != nil {
		d.pool.Statistics = d.stats
	}
	d.pool.OnReread, d.pool.OnFault = d.rereadEnded, d.tellStatus
	if d.hub != nil {
		d.pool.Events = d.hub
	}
	if s.KeepPoison != "" {
		d.pool.KeepPoison = poisonKeeper(s.Spool, s.KeepPoison, d.log)
	}
	d.server = &server{loop: d.loop, pool: d.pool, log: d.lines, name: s.versionName(), began: d.began,
		timeout: time.Duration(s.Client), diskTimeout: time.Duration(s.Busy), maxLine: int(s.MaxRequestSize), commands: makeBuiltins(), reread: d.reread, usage: !s.likeOriginal(), emptier: newEmptier(s.Spool)}
	if !s.likeOriginal() {
		d.server.commands[mxproto.VerbHealth] = healthCommand
	}
	if s.ScanBelow {
		if d.server.guard, err = newSpoolGuard(s.Spool); err != nil {
			return err
		}
	}
	return d.openEndpoints()
}

// workerEnv is our environment as far as workers get it. What is withheld that
// somebody may have set for them is logged.
func (d *multiplexor) workerEnv() []string {
	env, withheld := process.Environ(os.Environ(), d.settings.likeOriginal())
	if len(withheld) > 0 {
		d.lines.Add(levelWarning, "not given to workers, because it could make them load foreign code: "+strings.Join(withheld, ", "))
	}
	return env
}

func (d *multiplexor) openStats() {
	s := d.settings
	if s.StatsFile == "" && !s.StatsSyslog {
		return
	}
	mode := os.FileMode(0o600)
	if s.Group {
		mode = 0o640
	}
	d.stats = &statLog{path: s.StatsFile, mode: mode, flush: s.StatsFlush, toLog: s.StatsSyslog, log: d.lines}
	d.stats.openOrLog()
}

// serve runs the loop until the pool has ended.
func (d *multiplexor) serve() {
	p, s := d.pool, d.settings
	ended := make(chan struct{})
	go d.watchSignals(d.signals, ended)
	go d.manager.Watch(func() { d.alive(ended) }, d.hangs, ended)
	go daemon.ReapOrphans(ended)
	if len(d.others["metrics"]) > 0 {
		registry := newMetrics(d.loop, p, d.server, int(s.Max))
		registry.Process(metrics.Process{State: d.state})
		for _, l := range d.others["metrics"] {
			go func() {
				if err := registry.Serve(l); err != nil {
					d.log.Error("metrics socket", "error", err)
				}
			}()
		}
	}
	for _, l := range d.others["notify"] {
		go func() {
			if err := d.hub.Serve(l); err != nil {
				d.lines.Add(levelError, "notification socket: "+err.Error())
			}
		}()
	}
	d.lines.event(levelInfo, "started; minWorkers=%d, maxWorkers=%d, maxRequests=%d, maxLifetime=%d, maxIdleTime=%d, busyTimeout=%d, clientTimeout=%d",
		s.Min, s.Max, s.MaxRequests, time.Duration(s.MaxLifetime)/time.Second, time.Duration(s.Idle)/time.Second, time.Duration(s.Busy)/time.Second, time.Duration(s.Client)/time.Second)
	if d.forks != nil {
		d.forks.Load()
	}
	p.Begin()
	if s.TickTime > 0 {
		p.StartTicks(int(s.Ticks), time.Duration(s.TickTime))
	}
	if s.Autoscale {
		p.StartAutoscale()
	}
	d.loop.Later(d.ready)
	if err := d.loop.Run(); err != nil {
		d.log.Error("the event loop has failed", "error", err)
		d.status = 1
	}
	close(ended)
}

// state is what a load balancer is told. The end closes the socket where it asks.
func (d *multiplexor) state() string {
	if d.answers.Load() {
		return metrics.Ready
	}
	return "starting"
}

// ready tells whoever waits that requests are answered from now on.
func (d *multiplexor) ready() {
	d.answers.Store(true)
	d.report.ready()
	d.work.must(d.manager.Ready)
	if !d.settings.likeOriginal() {
		d.lines.Add(levelInfo, fmt.Sprintf("ready, process %d", os.Getpid()))
		if text := d.settings.quarantineLost(originalQuarantine); text != "" {
			d.lines.Add(levelWarning, text)
		}
	}
	d.tellStatus()
}

// statusInterval is the time between texts for the service manager.
const statusInterval = 10 * time.Second

// tellStatus tells the service manager in words what the workers do.
func (d *multiplexor) tellStatus() {
	d.manager.Status(d.pool.StatusText())
	d.statusTimer.Do = d.tellStatus
	d.loop.Timers.Start(&d.statusTimer, statusInterval)
}

// alive returns when the loop has turned, or has ended.
func (d *multiplexor) alive(ended <-chan struct{}) {
	answered := make(chan struct{})
	d.loop.Post(func() { close(answered) })
	select {
	case <-answered:
	case <-ended:
	}
}

// hangs says why the service manager gets no sign of life.
func (d *multiplexor) hangs() {
	d.lines.Add(levelError, "no sign of life for the service manager: the event loop hangs")
}

// close frees everything, in the order in which the parts use each other.
func (d *multiplexor) close() {
	if d.forks != nil {
		d.forks.Close()
	}
	if d.starter != nil {
		d.starter.Close()
	}
	if d.hub != nil {
		d.hub.Close()
	}
	d.giveUpNames(func(err error) { d.log.Warn(err.Error()) })
	if d.pool != nil && !d.settings.likeOriginal() {
		d.log.Info("stopped")
	}
	if d.work != nil && d.work.Close() && d.stats != nil {
		d.stats.Close()
	}
	if d.server != nil && d.server.guard != nil {
		d.server.guard.Close()
	}
	if d.loop != nil {
		_ = d.loop.Close() // nobody uses it any more
	}
	d.closeLog()
}
