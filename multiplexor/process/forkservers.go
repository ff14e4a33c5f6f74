package process

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"postern/internal/evloop"
	"postern/multiplexor/pool"
)

// ForkServers starts workers as forks of a process that has loaded the filter already:
// the fork server, whose protocol is in multiplexor-forkserver(7). It stands in
// for the starter, which it falls back to when there is no fork server. It lives
// on the loop.
type ForkServers struct {
	loop    *evloop.Loop
	program *Program
	exec    startFunc // starts a worker without a fork server
	log     pool.Log
	events  bool // log what is only wanted with --log-events

	current *forkServer // forks new workers; nil: none
	next    *forkServer // is loading, to be the current one
	before  *forkServer // was the current one, and may be again if the new rules do not work
	certain bool        // the old rules will not be wanted again
	servers map[*forkServer]bool
	waiting []pendingStart // for what becomes of next
	failed  func(error)    // told when next cannot load what a reread asked for

	LoadLimit, LoadWait, ForkLimit time.Duration

	patience  evloop.Timer // while next is loading
	impatient bool         // it takes too long: workers are started without it

	deaths  int // of servers that had not run for long
	retry   evloop.Timer
	stopped bool
	ending  sync.WaitGroup
}

// startFunc is the type of pool.Processes.Start.
type startFunc func(o pool.Owner, probe bool, done func(pool.Process, error))

// pendingStart is a worker that is to be started.
type pendingStart struct {
	owner pool.Owner
	probe bool
	done  func(pool.Process, error)
}

const (
	// A fork server must have loaded its filter within this time.
	loadLimit = 60 * time.Second
	// Requests do not wait that long for a worker: after this time one is started
	// without the server. It has to load the filter itself, so that to try at once would
	// be no faster, and cost the memory that a fork shares.
	loadWait = 5 * time.Second
	// A fork takes milliseconds. A server that does not answer is given up.
	forkLimit = 10 * time.Second
	// One that has died is replaced after a time that doubles, unless the last one
	// had run for long.
	reviveFirst = time.Second
	reviveMost  = 5 * time.Minute
	longRun     = time.Minute
)

var errStopping = errors.New("the multiplexor is ending")

// NewForkServers makes fork servers of the program; exec starts a worker where there is none. Nothing is loaded before Load.
func NewForkServers(l *evloop.Loop, pr *Program, exec startFunc, log pool.Log, events bool) *ForkServers {
	f := &ForkServers{loop: l, program: pr, exec: exec, log: log, events: events, LoadLimit: loadLimit, LoadWait: loadWait, ForkLimit: forkLimit, servers: map[*forkServer]bool{}}
	f.retry.Do = f.Load
	f.patience.Do = f.goOnWithout
	return f
}

// Start implements pool.Processes.Start.
func (f *ForkServers) Start(o pool.Owner, probe bool, done func(pool.Process, error)) {
	st := pendingStart{o, probe, done}
	switch {
	case f.stopped:
		done(nil, errStopping)
	// A probe should come from the server that has the new rules.
	case f.next != nil && (!f.impatient || probe):
		f.waiting = append(f.waiting, st)
	case f.next != nil:
		f.exec(o, probe, done)
	case f.current != nil:
		f.current.fork(st)
	default:
		f.exec(o, probe, done)
	}
}

// goOnWithout starts without the server what has waited long enough for it.
func (f *ForkServers) goOnWithout() {
	f.impatient = true
	f.event(slog.LevelInfo, fmt.Sprintf("The fork server is still loading the filter after %v: workers are started without it until it is ready", f.LoadWait))
	f.release()
}

// Reread makes a new server load the filter. Workers started from now on have the
// new rules: their start waits for that server, or they load them themselves. If it cannot load them, failed is
// told, and workers have the rules of the old server, or are started without one.
func (f *ForkServers) Reread(failed func(error)) {
	f.loop.Timers.Stop(&f.retry)
	if f.next != nil {
		f.next.drop()
		f.next = nil
	}
	f.failed = failed
	f.deaths, f.certain = 0, false
	f.Load()
}

// Forget implements pool.Processes.Forget: the new rules work, or the old ones were
// not to be kept.
func (f *ForkServers) Forget(int) {
	f.certain = true
	if old := f.before; old != nil {
		f.before = nil
		old.checkDone()
	}
}

// Revert implements pool.Processes.Revert: the new rules do not work. Workers are
// forked with the old ones again, if there is a server that has them.
func (f *ForkServers) Revert() {
	if f.before == nil {
		return
	}
	bad := f.current
	f.current, f.before = f.before, nil
	if bad != nil {
		bad.checkDone()
	}
}

// Load starts a server that is to be the current one.
func (f *ForkServers) Load() {
	if f.stopped || f.next != nil {
		return
	}
	s := &forkServer{forks: f, made: make(chan newProcess, 1), sent: map[int]pendingStart{}}
	s.timer.Do = s.tooSlow
	f.next = s
	f.servers[s] = true
	f.loop.Start(&s.timer, f.LoadLimit)
	f.impatient = false
	f.loop.Start(&f.patience, f.LoadWait)
	go func() {
		startBatch()
		s.made <- f.program.startForkServer()
		f.loop.Post(s.started)
	}()
}

// loaded: the server has loaded the filter.
func (f *ForkServers) loaded(s *forkServer) {
	f.loop.Timers.Stop(&f.patience)
	old := f.current
	f.current, f.next, f.failed = s, nil, nil
	if !f.certain && f.before == nil {
		f.before, old = old, nil
	}
	s.since, s.words = f.loop.Now(), ""
	f.event(slog.LevelInfo, fmt.Sprintf("Fork server (pid %d) has loaded the filter", s.pid))
	if old != nil {
		old.checkDone()
	}
	f.release()
}

// release lets the starts go on that waited for the server.
func (f *ForkServers) release() {
	waiting := f.waiting
	f.waiting = nil
	for _, st := range waiting {
		f.Start(st.owner, st.probe, st.done)
	}
}

// lost: the server is no more, or of no use. how says why, in words.
func (f *ForkServers) lost(s *forkServer, how string) {
	f.loop.Timers.Stop(&s.timer)
	delete(f.servers, s)
	sent := s.sent
	s.sent = nil
	switch {
	case f.stopped:
	case s == f.next:
		f.next = nil
		f.loop.Timers.Stop(&f.patience)
		f.notLoaded(s, how)
	case s == f.current:
		f.current = nil
		f.died(s, how)
	default:
		if s == f.before {
			f.before = nil
		}
		f.event(slog.LevelInfo, fmt.Sprintf("Fork server (pid %d) of old rules %s", s.pid, how))
	}
	for _, st := range sent {
		f.Start(st.owner, st.probe, st.done)
	}
}

// notLoaded: the server that was loading the filter has come to nothing.
func (f *ForkServers) notLoaded(s *forkServer, how string) {
	f.log.Add(slog.LevelError, fmt.Sprintf("Fork server (pid %d) %s before it had loaded the filter%s", s.pid, how, s.complaint()))
	if f.current != nil {
		f.log.Add(slog.LevelError, "The new filter rules could not be loaded: new workers have the old ones")
		if f.failed != nil {
			f.failed(fmt.Errorf("the fork server %s", how))
		}
	} else {
		f.log.Add(slog.LevelError, "Could not initialize embedded Perl interpreter -- falling back to old method.")
		if f.deaths > 0 {
			f.revive() // it could be loaded once
		}
	}
	f.failed = nil
	f.release()
}

// died: the server that forks new workers has ended. Its workers are not harmed.
func (f *ForkServers) died(s *forkServer, how string) {
	f.log.Add(slog.LevelError, fmt.Sprintf("Fork server (pid %d) %s%s", s.pid, how, s.complaint()))
	if f.before != nil {
		f.log.Add(slog.LevelError, "Workers are forked with the old filter rules again")
		f.Revert()
		return
	}
	if f.loop.Now()-s.since > longRun {
		f.deaths = 0
	}
	f.log.Add(slog.LevelError, "Workers are started without a fork server")
	f.revive()
}

// revive makes another server be loaded after a while.
func (f *ForkServers) revive() {
	if f.next != nil {
		return
	}
	wait := reviveMost
	if f.deaths < 9 {
		wait = min(reviveFirst<<f.deaths, reviveMost)
	}
	f.deaths++
	f.loop.Start(&f.retry, wait)
	f.log.Add(slog.LevelInfo, fmt.Sprintf("Another fork server will be started in %v", wait))
}

// Stop refuses what waits. The servers stay as long as they have workers.
func (f *ForkServers) Stop() {
	f.stopped = true
	f.loop.Timers.Stop(&f.retry)
	f.loop.Timers.Stop(&f.patience)
	if f.next != nil {
		f.next.drop()
		f.next = nil
	}
	waiting := f.waiting
	f.waiting = nil
	for _, st := range waiting {
		st.done(nil, errStopping)
	}
}

// Close ends all servers and waits for them. The loop has ended.
func (f *ForkServers) Close() {
	f.stopped = true
	for s := range f.servers {
		s.drop()
	}
	f.ending.Wait()
}

func (f *ForkServers) event(l slog.Level, text string) {
	if f.events {
		f.log.Add(l, text)
	}
}
