package pool

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/evloop"
	"postern/internal/notify"
)

// Limits are the settings that the rules need. Sizes are in bytes.
type Limits struct {
	Min, Max       int
	MaxRequests    int           // of one process; also see Jitter
	Jitter         int           // percent by which MaxRequests is lowered at random
	MaxLifetime    time.Duration // since the first request; 0 = none
	IdleTimeout    time.Duration
	BusyTimeout    time.Duration
	ClientTimeout  time.Duration // of writing a line to a worker
	StartInterval  time.Duration // between starts that bring the pool to Min
	MinStartGap    time.Duration // between any two starts
	QueueSize      int
	QueueTimeout   time.Duration
	MaxAnswer      int
	PerDomain      int   // concurrent recipok of one domain; 0 = any number
	PoisonLimit    int   // workers a message may end; 0 = any number
	MaxResident    int64 // memory of a worker above which it is replaced; 0 = any
	ClassicReload  bool
	ReloadFailures int           // new workers that may die before a reread is given up
	ReloadTimeout  time.Duration // for the first answer of a new worker
	Original       bool          // nothing is said to workers, listeners and clients that the original does not say
	LogEvents      bool
	LogStderr      bool // of workers
	LogScheduling  bool
	StatusInterval time.Duration // between log lines of the pool's state; 0 = none
}

// Log takes log lines. It does not block.
type Log interface {
	Add(level slog.Level, text string)
	// AddEach takes one of the lines of which there is one for each request, because a setting asks for them.
	AddEach(level slog.Level, text string)
}

// Statistics takes the lines on starts, scans and ends. It does not block.
type Statistics interface {
	Add(event string, worker, running, busy int, extra string)
}

// Timings takes how long requests have taken, and have waited in the queue.
type Timings interface {
	Ended(kind string, took time.Duration)
	Waited(d time.Duration)
}

// Events tells listeners what happens: a hub.Hub. It does not block.
type Events interface{ Publish(...notify.Message) }

// Pool is all workers and what they have to do. Everything in it happens on one
// goroutine, that of the timers.
type Pool struct {
	// Whoever is told, if anybody is. They are set before Begin.
	Events     Events
	Statistics Statistics
	Timings    Timings
	OnFault    func()           // workers come to nothing for another reason than before, or no more
	OnReread   func()           // the outcome of a reread is known
	KeepPoison func(dir string) // copies a working directory away; does not block

	limits Limits
	timers *evloop.Timers
	os     Processes
	log    Log

	workers []*worker
	idle    idleSet
	stopped []*worker // the next slot to start is the last
	queue   queue

	overflow      queue // requests that found the queue full, for a moment
	overflowTimer evloop.Timer
	stuck         bool // the queue has been full for more than a moment

	working int    // workers that have answered
	fault   fault  // why the last ones have not
	cause   string // what the worker has died of whose request fails now

	count [states]int
	free  int // as listeners were told last, by the first change as well: it begins with 0
	turns int // state changes

	loading     []*worker // those of nstarting that no request waits for
	nstarting   int       // processes being started
	reserved    int       // those of them that a request waits for
	activations uint64
	generation  int
	messages    int // scans finished
	histogram   []int
	loads       loadAverages
	counters    counters
	domains     map[string]int // recipok running for a domain, if that is limited

	lastStart time.Duration
	everBegun bool
	deaths    int // workers in a row that died without an answer
	retryAt   time.Duration

	minTimer, gapTimer, idleTimer, statusTimer, stopTimer evloop.Timer

	poison poison

	scale  autoscaler
	reload reload
	hold   bool // new workers do not work: the old ones are not retired
	heldAt time.Duration

	stopping bool
	stopStep int
	gone     func() // the last process is gone, while stopping
}

// New makes a pool. Nothing is started before Begin.
func New(l Limits, timers *evloop.Timers, os Processes, log Log) *Pool {
	p := &Pool{limits: l, timers: timers, os: os, log: log, histogram: make([]int, l.Max), free: l.Max, domains: map[string]int{}}
	for n := range l.Max {
		w := &worker{pool: p, n: n, lastKind: kindNone}
		w.timer.Do = w.expired
		p.workers = append(p.workers, w)
		p.stopped = append(p.stopped, w)
	}
	slices.Reverse(p.stopped)
	p.count[stopped] = l.Max
	p.minTimer.Do = p.fillUp
	p.gapTimer.Do = p.serveQueue
	p.overflowTimer.Do = p.overflowed
	p.idleTimer.Do = p.retireIdle
	p.statusTimer.Do = p.logStatus
	p.stopTimer.Do = p.escalate
	p.reload.pool = p
	p.loads.wall = os.Wall
	return p
}

// Begin starts the first worker and the timers.
func (p *Pool) Begin() {
	p.fillUp()
	p.timers.Start(&p.idleTimer, p.limits.IdleTimeout)
	if p.limits.StatusInterval > 0 {
		p.timers.Start(&p.statusTimer, p.limits.StatusInterval)
	}
}

func (p *Pool) running() int { return p.count[idle] + p.count[busy] + p.count[killed] }

// Free is the answer to "free": what could take a request now.
func (p *Pool) Free() int { return p.count[idle] + p.count[stopped] - p.reserved }

// setState changes the state of a worker and tells the listeners.
func (p *Pool) setState(w *worker, s state) {
	old := w.state
	p.count[old]--
	p.count[s]++
	w.state = s
	w.changed = p.timers.Now()
	p.turns++
	w.turn = p.turns
	w.tag = w.tag[:0]
	if s == busy {
		p.histogram[p.count[busy]-1]++
	}
	before := p.free
	p.free = p.count[idle] + p.count[stopped]
	if s == killed || s == stopped {
		defer p.setWorking(w, false) // after the change itself
	}
	if p.Events == nil {
		return
	}
	msgs := [3]notify.Message{{Letter: notify.LetterStatus, Text: strconv.Itoa(w.n) + " " + changeWord + " " + old.String() + " -> " + s.String()}}
	n := 1
	if p.free != before {
		msgs[n] = notify.Message{Letter: notify.LetterFree, Text: strconv.Itoa(p.free)}
		n++
	}
	switch {
	case p.free == 0:
		msgs[n] = notify.Message{Letter: notify.LetterNone}
		n++
	case before == 0:
		msgs[n] = notify.Message{Letter: notify.LetterSome}
		n++
	}
	p.Events.Publish(msgs[:n]...)
}

func (p *Pool) publish(letter byte, text string) {
	if p.Events != nil {
		p.Events.Publish(notify.Message{Letter: letter, Text: text})
	}
}

// event logs a line that is only wanted with --log-events.
func (p *Pool) event(level slog.Level, format string, args ...any) {
	if p.limits.LogEvents {
		p.log.Add(level, fmt.Sprintf(format, args...))
	}
}

func (p *Pool) statistic(w *worker, event, extra string) {
	if p.Statistics != nil {
		p.Statistics.Add(event, w.n, p.running(), p.count[busy], extra)
	}
}

// takeSlot takes a slot without a process, of which there must be one.
func (p *Pool) takeSlot() *worker {
	last := len(p.stopped) - 1
	w := p.stopped[last]
	p.stopped = p.stopped[:last]
	return w
}

// mayStart reports whether a process may be started now. If not, the queue is
// served when it may.
func (p *Pool) mayStart() bool {
	if p.stopping {
		return false
	}
	now, until := p.timers.Now(), p.retryAt
	if p.everBegun && p.limits.MinStartGap > 0 {
		until = max(until, p.lastStart+p.limits.MinStartGap)
	}
	if now >= until {
		return true
	}
	p.timers.Start(&p.gapTimer, until-now)
	return false
}

// start begins to start a process in a slot that acquire gave; r, which may be
// nil, is for it.
func (p *Pool) start(w *worker, r *Request, reason string) {
	p.lastStart, p.everBegun = p.timers.Now(), true
	p.nstarting++
	w.starting = true
	w.generation = p.generation
	if r != nil {
		p.reserve(w, r)
	} else {
		p.loading = append(p.loading, w)
	}
	p.os.Start(w, r != nil && r.origin == fromPool, func(c Process, err error) { p.begun(w, c, err, reason) })
}

// reserve makes r wait for the process that is being started in w.
func (p *Pool) reserve(w *worker, r *Request) {
	w.req = r
	p.reserved++
	p.enterDomain(r)
	w.arm(phaseStart, p.limits.BusyTimeout)
}

// unreserve gives up a request whose process is still not there. The process
// itself may come yet.
func (p *Pool) unreserve(w *worker, why Failure) {
	r := w.req
	w.req = nil
	w.disarm()
	p.reserved--
	p.leaveDomain(r)
	p.refuse(r, why)
}

// begun is the end of start.
func (p *Pool) begun(w *worker, c Process, err error, reason string) {
	w.starting = false
	p.nstarting--
	p.loading = slices.DeleteFunc(p.loading, func(l *worker) bool { return l == w })
	r := w.req
	if r != nil {
		p.reserved--
		p.leaveDomain(r)
		w.req = nil
		w.disarm()
	}
	if err != nil {
		p.stopped = append(p.stopped, w)
		p.log.Add(slog.LevelError, fmt.Sprintf("Could not start worker %d: %v", w.n, err))
		p.diedYoung(w, err.Error())
		if r != nil {
			p.refuse(r, FailStart)
		}
		p.fillLater()
		p.serveQueue()
		p.checkGone()
		return
	}
	p.activations++
	now := p.timers.Now()
	*w = worker{pool: p, n: w.n, state: w.state, changed: w.changed, child: c, lastKind: kindNone,
		activation: p.activations, generation: w.generation, limit: p.requestLimit(),
		started: now, tag: w.tag[:0], timer: w.timer}
	p.setState(w, idle)
	p.loads.activated(now)
	p.event(slog.LevelInfo, "Starting worker %d (pid %d) (%d running): %s", w.n, w.pid(), p.running(), reason)
	p.statistic(w, "StartWorker", `reason="`+strings.ReplaceAll(reason, `"`, "'")+`"`)
	switch {
	case p.stopping:
		p.kill(w, "Terminating", false)
		if r != nil {
			p.tell(r, FailShutdown)
		}
	case r != nil:
		p.assign(w, r)
	default:
		if !p.limits.Original {
			w.arm(phaseNew, greetAfter)
		}
		p.idle.add(w)
		p.serveQueue()
	}
}

// requestLimit returns how many requests a new worker may have. Workers started together should not
// be replaced together.
func (p *Pool) requestLimit() int {
	n := p.limits.MaxRequests
	if span := n * p.limits.Jitter / 100; span > 0 {
		n -= rand.IntN(span + 1)
	}
	return max(n, 1)
}

// fillUp brings the pool to its minimum, one process each time.
func (p *Pool) fillUp() {
	if p.stopping || !p.wanting() || len(p.stopped) == 0 {
		return
	}
	if p.mayStart() {
		w := p.takeSlot()
		p.start(w, nil, fmt.Sprintf("Bringing workers up to minWorkers (%d)", p.limits.Min))
	}
	p.fillLater()
}

// wanting reports whether a process is to be started that no request asks for: up to the
// minimum, and one more to find out whether a fault is over.
func (p *Pool) wanting() bool {
	if p.running()+p.nstarting < p.limits.Min {
		return true
	}
	if p.limits.Original || p.fault.text == "" || p.hold || p.reload.active || p.nstarting > 0 {
		return false
	}
	for _, w := range p.workers {
		if w.child != nil && w.activation > p.fault.activation && w.state != killed {
			return false // it will show
		}
	}
	return true
}

// fillLater makes fillUp look again after the interval, if there is need.
func (p *Pool) fillLater() {
	if p.wanting() && !p.minTimer.Running() && !p.stopping {
		p.timers.Start(&p.minTimer, max(p.limits.StartInterval, p.retryAt-p.timers.Now()))
	}
}

// kill tells a worker to go. It is asked by end of file first, or gets SIGTERM at once if it
// is to be terminated.
func (p *Pool) kill(w *worker, reason string, terminate bool) {
	if w.state == killed || w.state == stopped {
		return
	}
	p.idle.remove(w)
	if terminate && (p.young(w) && reason != busyReason || reason == noGreeting) {
		p.diedYoung(w, w.because(reason))
	}
	was := w.state
	p.setState(w, killed)
	w.dying = false
	p.event(slog.LevelInfo, "Killing %s worker %d (pid %d) req=%d age=%d req_age=%d: %s", lowerStates[was], w.n, w.pid(), w.requests, p.age(w), p.firstAge(w), reason)
	p.statistic(w, "KillWorker", fmt.Sprintf("req=%d age=%d reason=%q", w.requests, p.age(w), reason))
	w.child.Signal(syscall.SIGCONT)
	if terminate {
		w.child.Signal(syscall.SIGTERM)
		w.arm(phaseKill, killWait)
	} else {
		w.arm(phaseTerm, killWait)
	}
	w.child.CloseInput()
}

var lowerStates = [states]string{"stopped", "idle", "busy", "killed"}

// age is that of the process in seconds, -1 without one.
func (p *Pool) age(w *worker) int {
	if w.child == nil {
		return -1
	}
	return int((p.timers.Now() - w.started) / time.Second)
}

// firstAge is the time since the process got its first request, in seconds.
func (p *Pool) firstAge(w *worker) int {
	if w.child == nil || !w.used {
		return -1
	}
	return int((p.timers.Now() - w.first) / time.Second)
}

// retireIdle ends what is too old or has had nothing to do for long.
func (p *Pool) retireIdle() {
	p.timers.Start(&p.idleTimer, p.limits.IdleTimeout)
	now := p.timers.Now()
	if p.hold {
		return
	}
	resting := p.resting()
	for _, w := range resting {
		if p.limits.MaxLifetime > 0 && w.used && now-w.first > p.limits.MaxLifetime {
			p.kill(w, fmt.Sprintf("Worker has exceeded maximum lifetime of %d seconds", p.limits.MaxLifetime/time.Second), false)
		}
	}
	alive := p.count[idle] + p.count[busy]
	for _, w := range resting {
		if w.state == idle && now-w.changed >= p.limits.IdleTimeout && alive > p.limits.Min {
			p.kill(w, "Idle timeout", false)
			alive--
		}
	}
	p.fillLater()
}

// resting returns the idle workers that can take a request, the most recently used
// first.
func (p *Pool) resting() []*worker {
	var all []*worker
	for _, w := range p.workers {
		if w.available {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b *worker) int { return int(b.turn - a.turn) })
	return all
}

func (p *Pool) logStatus() {
	p.timers.Start(&p.statusTimer, p.limits.StatusInterval)
	p.log.Add(slog.LevelInfo, fmt.Sprintf("Worker status: Stopped=%d Idle=%d Busy=%d Killed=%d Queued=%d Msgs=%d Activations=%d",
		p.count[stopped], p.count[idle], p.count[busy], p.count[killed], p.queue.len, p.messages, p.activations))
}
