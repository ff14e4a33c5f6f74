package main

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"postern/internal/evloop"
	"postern/internal/namedfile"
)

// forks starts workers as forks of a process that has loaded the filter already:
// the fork server, whose protocol is in multiplexor-forkserver(7). It stands in
// for the starter, which it falls back to when there is no fork server. It lives
// on the loop.
type forks struct {
	loop    *evloop.Loop
	program *program
	exec    func(w *worker, done func(child, error)) // starts a worker without a fork server
	log     *journal
	events  bool // log what is only wanted with --log-events

	current *forkServer // forks new workers; nil: none
	next    *forkServer // is loading, to be the current one
	before  *forkServer // was the current one, and may be again if the new rules do not work
	certain bool        // the old rules will not be wanted again
	servers map[*forkServer]bool
	waiting []pendingStart // for what becomes of next
	failed  func(error)    // told when next cannot load what a reread asked for

	loadLimit, forkLimit, loadWait time.Duration

	patience  evloop.Timer // while next is loading
	impatient bool         // it takes too long: workers are started without it

	deaths  int // of servers that had not run for long
	retry   evloop.Timer
	stopped bool
	burials sync.WaitGroup
}

// pendingStart is a worker that is to be started, and who is told of it.
type pendingStart struct {
	w    *worker
	done func(child, error)
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

func newForks(l *evloop.Loop, pr *program, exec func(*worker, func(child, error)), log *journal, events bool) *forks {
	f := &forks{loop: l, program: pr, exec: exec, log: log, events: events, loadLimit: loadLimit, forkLimit: forkLimit, loadWait: loadWait, servers: map[*forkServer]bool{}}
	f.retry.Do = f.load
	f.patience.Do = f.goOnWithout
	return f
}

// Start implements processes.Start.
func (f *forks) Start(w *worker, done func(child, error)) {
	st := pendingStart{w, done}
	switch {
	case f.stopped:
		done(nil, errStopping)
	case f.next != nil && (!f.impatient || w.probes()):
		f.waiting = append(f.waiting, st)
	case f.next != nil:
		f.exec(w, done)
	case f.current != nil:
		f.current.fork(st)
	default:
		f.exec(w, done)
	}
}

// probes says whether the process that is being started is to try new rules. No client
// waits for it, and it should come from the server that has these rules.
func (w *worker) probes() bool { return w.req != nil && w.req.origin == fromPool }

// goOnWithout starts without the server what has waited long enough for it.
func (f *forks) goOnWithout() {
	f.impatient = true
	f.event(levelInfo, fmt.Sprintf("The fork server is still loading the filter after %v: workers are started without it until it is ready", f.loadWait))
	f.release()
}

// reread makes a new server load the filter. Workers started from now on have the
// new rules: their start waits for that server, or they load them themselves. If it cannot load them, failed is
// told, and workers have the rules of the old server, or are started without one.
func (f *forks) reread(failed func(error)) {
	f.loop.Timers.Stop(&f.retry)
	if f.next != nil {
		f.next.abandon()
		f.next = nil
	}
	f.failed = failed
	f.deaths, f.certain = 0, false
	f.load()
}

// forget implements processes.Forget: the new rules work, or the old ones were
// not to be kept.
func (f *forks) forget(int) {
	f.certain = true
	if old := f.before; old != nil {
		f.before = nil
		old.checkDone()
	}
}

// revert implements processes.Revert: the new rules do not work. Workers are
// forked with the old ones again, if there is a server that has them.
func (f *forks) revert() {
	if f.before == nil {
		return
	}
	bad := f.current
	f.current, f.before = f.before, nil
	if bad != nil {
		bad.checkDone()
	}
}

// load starts a server that is to be the current one.
func (f *forks) load() {
	if f.stopped || f.next != nil {
		return
	}
	s := &forkServer{forks: f, born: make(chan birth, 1), sent: map[int]pendingStart{}}
	s.timer.Do = s.tooSlow
	f.next = s
	f.servers[s] = true
	f.loop.Start(&s.timer, f.loadLimit)
	f.impatient = false
	f.loop.Start(&f.patience, f.loadWait)
	go func() {
		startBatch()
		s.born <- f.program.startForkServer()
		f.loop.Post(s.started)
	}()
}

// loaded: the server has loaded the filter.
func (f *forks) loaded(s *forkServer) {
	f.loop.Timers.Stop(&f.patience)
	old := f.current
	f.current, f.next, f.failed = s, nil, nil
	if !f.certain && f.before == nil {
		f.before, old = old, nil
	}
	s.since, s.words = f.loop.Now(), ""
	f.event(levelInfo, fmt.Sprintf("Fork server (pid %d) has loaded the filter", s.pid))
	if old != nil {
		old.checkDone()
	}
	f.release()
}

// release lets the starts go on that waited for the server.
func (f *forks) release() {
	waiting := f.waiting
	f.waiting = nil
	for _, st := range waiting {
		f.Start(st.w, st.done)
	}
}

// lost: the server is no more, or of no use. how says why, in words.
func (f *forks) lost(s *forkServer, how string) {
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
		f.event(levelInfo, fmt.Sprintf("Fork server (pid %d) of old rules %s", s.pid, how))
	}
	for _, st := range sent {
		f.Start(st.w, st.done)
	}
}

// notLoaded: the server that was loading the filter has come to nothing.
func (f *forks) notLoaded(s *forkServer, how string) {
	f.log.add(levelError, fmt.Sprintf("Fork server (pid %d) %s before it had loaded the filter%s", s.pid, how, s.complaint()))
	if f.current != nil {
		f.log.add(levelError, "The new filter rules could not be loaded: new workers have the old ones")
		if f.failed != nil {
			f.failed(fmt.Errorf("the fork server %s", how))
		}
	} else {
		f.log.add(levelError, "Could not initialize embedded Perl interpreter -- falling back to old method.")
		if f.deaths > 0 {
			f.revive() // it could be loaded once
		}
	}
	f.failed = nil
	f.release()
}

// died: the server that forks new workers has ended. Its workers are not harmed.
func (f *forks) died(s *forkServer, how string) {
	f.log.add(levelError, fmt.Sprintf("Fork server (pid %d) %s%s", s.pid, how, s.complaint()))
	if f.before != nil {
		f.log.add(levelError, "Workers are forked with the old filter rules again")
		f.revert()
		return
	}
	if f.loop.Now()-s.since > longRun {
		f.deaths = 0
	}
	f.log.add(levelError, "Workers are started without a fork server")
	f.revive()
}

// revive makes another server be loaded after a while.
func (f *forks) revive() {
	if f.next != nil {
		return
	}
	wait := reviveMost
	if f.deaths < 9 {
		wait = min(reviveFirst<<f.deaths, reviveMost)
	}
	f.deaths++
	f.loop.Start(&f.retry, wait)
	f.log.add(levelInfo, fmt.Sprintf("Another fork server will be started in %v", wait))
}

// stop refuses what waits. The servers stay as long as they have workers.
func (f *forks) stop() {
	f.stopped = true
	f.loop.Timers.Stop(&f.retry)
	f.loop.Timers.Stop(&f.patience)
	if f.next != nil {
		f.next.abandon()
		f.next = nil
	}
	waiting := f.waiting
	f.waiting = nil
	for _, st := range waiting {
		st.done(nil, errStopping)
	}
}

// Close ends all servers and waits for them. The loop has ended.
func (f *forks) Close() {
	f.stopped = true
	for s := range f.servers {
		s.abandon()
	}
	f.burials.Wait()
}

func (f *forks) event(l level, text string) {
	if f.events {
		f.log.add(l, text)
	}
}

//go:embed forkserver/mimedefang-forkserver.pl
var perlLoader []byte

// Descriptors of a fork server besides the standard ones. The third is kept free
// for the status pipe of workers: a filter may bind a handle to its number.
const (
	controlFD = 4
	loaderFD  = 5
)

// forkSocketVariable tells a program the number of its control socket.
const forkSocketVariable = "POSTERN_FORK_SOCKET"

// forkServerCommand gives the command that makes a fork server of the program. A
// Perl program is helped by our loader, which perl reads from loaderFD: embedded
// here it has the version of the multiplexor that runs, whatever is installed by
// then.
func (pr *program) forkServerCommand() (path string, argv []string, perl bool) {
	args := append([]string{pr.Path}, pr.args("-embserver")...)
	interpreter, err := scriptInterpreter(pr.Path)
	if err != nil || !isPerl(interpreter) {
		// A program that cannot be read may still be executed.
		args[0] = filepath.Base(pr.Path)
		return pr.Path, args, false
	}
	argv = append(interpreter, fmt.Sprintf(loadLoader, loaderFD))
	return interpreter[0], append(argv, args...), true
}

// isPerl says whether a script is one for perl, also by way of env(1).
func isPerl(interpreter []string) bool {
	for i, word := range interpreter {
		if i > 0 && strings.HasPrefix(word, "-") {
			continue
		}
		base := filepath.Base(word)
		if i > 0 || base != "env" {
			return strings.HasPrefix(base, "perl")
		}
	}
	return false
}

// loadLoader makes perl read the loader. The match takes the taint off it: with -T,
// perl runs nothing that was read.
const loadLoader = "-MPOSIX ();BEGIN{open my$f,'<&=',%d or die$!;local$/;<$f>=~/(.*)/s;eval$1;die$@ if$@}"

// scriptInterpreter gives the words behind #! at the beginning of a file.
func scriptInterpreter(path string) ([]string, error) {
	head, err := namedfile.Head(path, 512)
	if err != nil {
		return nil, err
	}
	line, _, whole := strings.Cut(string(head), "\n")
	text, ok := strings.CutPrefix(line, "#!")
	if words := strings.Fields(text); ok && whole && len(words) > 0 {
		return words, nil
	}
	return nil, fmt.Errorf("%s is no script", path)
}
