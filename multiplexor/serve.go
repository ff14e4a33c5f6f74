package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/evloop"
	"postern/internal/logging"
	"postern/internal/mxproto"
	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/privdrop"
	"postern/multiplexor/pool"
	"postern/multiplexor/process"
)

// multiplexor is what happens between the settings and the end.
type multiplexor struct {
	settings *settings
	account  *privdrop.Account // whom root becomes; nil if it is not root who starts
	began    time.Time
	started  func() // tells who waits for the start

	files    ownFiles
	log      *slog.Logger
	logQueue *logging.Queue
	env      *daemon.Env // of the skeleton
	sockets  []socket

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

	statusTimer evloop.Timer
	reloading   bool // the service manager waits for the end of a reread
}

// drainLimit is more than the pool takes to end, which has a time for each of its steps.
const drainLimit = 25 * time.Second

// program gives the parts that the skeleton calls.
func (d *multiplexor) program() daemon.Program {
	s := d.settings
	return daemon.Program{
		Name:     s.program,
		Settings: &daemon.Common{User: s.User, NoNewPrivs: config.Switch(s.NoNewPrivs).String(), DrainTimeout: drainLimit},
		Open:     d.open, Serve: d.serve, AtOnce: d.abandon,
		Signals: map[os.Signal]daemon.Action{
			syscall.SIGTERM: daemon.Drain, syscall.SIGQUIT: daemon.Drain,
			syscall.SIGINT: daemon.Reload, syscall.SIGHUP: daemon.Do(func() { d.loop.Post(d.reopenStats) }),
		},
	}
}

// open is what root does.
func (d *multiplexor) open(env *daemon.Env) (err error) {
	d.env = env
	if err := d.openSockets(env); err != nil {
		return err
	}
	d.loop, err = evloop.New()
	return err
}

// assemble makes the parts and connects them.
func (d *multiplexor) assemble() (err error) {
	s := d.settings
	d.work = newWorkQueue()
	d.lines = &logQueue{log: d.log, queue: d.logQueue, work: d.work, events: s.LogEvents}
	d.openStats()
	if len(d.env.Listeners["notify"]) > 0 {
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

func (d *multiplexor) reopenStats() {
	if d.stats != nil {
		d.stats.reopen()
	}
}

// serve runs the loop until the pool has ended.
func (d *multiplexor) serve(ctx context.Context, env *daemon.Env) error {
	defer d.close()
	if err := d.assemble(); err != nil {
		return err
	}
	p, s := d.pool, d.settings
	ended := make(chan struct{})
	defer close(ended)
	env.Watchdog("event loop", func() { d.alive(ended) })
	go d.follow(ctx, env, ended)
	if len(env.Listeners["metrics"]) > 0 {
		registry := newMetrics(env.Process, d.loop, p, d.server, int(s.Max))
		for _, l := range env.Listeners["metrics"] {
			go func() {
				if err := registry.Serve(l); err != nil {
					d.log.Error("metrics socket", "error", err)
				}
			}()
		}
	}
	for _, l := range env.Listeners["notify"] {
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
		return err
	}
	return nil
}

// follow has the loop do what the skeleton wants, until ended is closed.
func (d *multiplexor) follow(ctx context.Context, env *daemon.Env, ended <-chan struct{}) {
	drain := ctx.Done()
	for {
		select {
		case <-ended:
			return
		case <-env.Pulse:
		case <-env.Hangup:
			d.loop.Post(d.reload)
		case <-drain:
			drain = nil
			d.loop.Post(func() { d.terminate(context.Cause(ctx)) })
		}
	}
}

// ready tells whoever waits that requests are answered from now on.
func (d *multiplexor) ready() {
	d.started()
	d.work.must(d.env.Ready) // a service manager that does not read could hold up the loop
	if !d.settings.likeOriginal() {
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
	d.env.Status(d.pool.StatusText())
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

// terminate begins the end, for which the cause is the name of a signal.
func (d *multiplexor) terminate(cause error) {
	d.lines.event(levelInfo, "Received %v: Stopping workers and terminating", cause)
	d.giveUpNames(func(err error) { d.lines.Add(levelWarning, err.Error()) })
	for _, l := range d.listeners {
		l.Close()
	}
	d.pool.Stop(d.loop.Stop)
	if d.forks != nil {
		d.forks.Stop()
	}
}

// abandon is the end at once: who waits gets an error, and not nothing.
func (d *multiplexor) abandon() {
	d.loop.Post(func() {
		d.pool.Abandon()
		d.loop.Stop()
	})
}

// giveUpNames gives up everything under which this multiplexor is found: its files and
// the names of its sockets. The next one can start while this one still has requests
// to finish, and this one has nothing left to take from it. Listeners to events that
// are connected stay.
func (d *multiplexor) giveUpNames(complain func(error)) {
	if err := d.files.remove(); err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		complain(err)
	}
	for _, t := range d.sockets {
		if err := t.remove(); err != nil {
			complain(fmt.Errorf("remove a socket: %w", err))
		}
	}
	if d.env == nil {
		return
	}
	if err := d.env.Listeners.Close(); err != nil {
		complain(fmt.Errorf("close the other sockets: %w", err))
	}
}

// close frees everything, in the order in which the parts use each other. The loop stays, since others may still
// post to it.
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
	if d.work.Close() && d.stats != nil {
		d.stats.Close()
	}
	if d.server != nil && d.server.guard != nil {
		d.server.guard.Close()
	}
}
