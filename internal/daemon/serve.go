package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/logging"
)

// Action is what a signal does.
type Action struct{ do func(*serving, os.Signal) }

// What signals do.
var (
	Drain    = Action{(*serving).terminate} // the second time the program ends at once
	Reload   = Action{(*serving).reloadSignal}
	takeOver = Action{func(s *serving, _ os.Signal) { s.takeOver() }}
)

// Do is an action of the program's own. It is called on a goroutine of the skeleton, and may not block.
func Do(f func()) Action { return Action{func(*serving, os.Signal) { f() }} }

// usualSignals is what signals do, unless the program has a table of its own.
var usualSignals = map[os.Signal]Action{
	syscall.SIGTERM: Drain, syscall.SIGINT: Drain, syscall.SIGHUP: Reload, syscall.SIGUSR2: takeOver,
}

// signals are those of a program, and those to reload apart from the others.
type signals struct {
	in     <-chan os.Signal
	reload chan os.Signal
	stop   func()
}

// newSignals takes over the signals of the process, unless in replaces them.
func newSignals(in <-chan os.Signal, actions map[os.Signal]Action) *signals {
	s := &signals{in: in, reload: make(chan os.Signal, 1), stop: func() {}}
	if in != nil {
		return s
	}
	// SIGPIPE is taken, to the very last line, so that a reader of standard error that goes away does
	// not end the program; unlike an ignored signal it is not inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, slices.Collect(maps.Keys(actions))...)
	s.in, s.stop = ch, func() { signal.Stop(ch) }
	return s
}

// lastWait is how long Serve is waited for when it is to end at once.
const lastWait = 3 * time.Second

// extendEvery is how often the service manager hears that a drain goes on, whatever time it gives to stops.
const extendEvery = 5 * time.Second

// serving is what the signals have made of a running Serve.
type serving struct {
	*instance
	ctx    context.Context
	cancel context.CancelCauseFunc // begins the drain
	reload chan<- os.Signal

	signaled bool        // to end
	atOnce   bool        // a second time
	early    bool        // a take-over was wanted before this process was ready
	next     *successor  // that is starting
	heir     *os.Process // that has taken over; nil: none has
	started  chan error  // what became of its start

	overdue, extend <-chan time.Time
}

// serve runs Serve as far as the signals let it.
func (l *instance) serve(signals *signals) (status int, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	s := &serving{instance: l, ctx: ctx, cancel: cancel, reload: signals.reload, started: make(chan error, 1)}
	readied := l.readied
	served := make(chan error, 1)
	go func() { served <- l.call(ctx) }()
	if l.program.ownProcess {
		go reapOrphans(nil)
	}
	for {
		select {
		case err := <-served:
			return 0, l.end(ctx, err)
		case <-s.extend:
			l.notifier.ExtendTimeout(2 * extendEvery)
		case <-s.overdue:
			// As the settings want it: that is no failure.
			l.env.Log.Warn("drain took too long, ending at once", "limit", l.common.DrainTimeout)
			s.cutShort(served)
			return 0, nil
		case <-readied:
			readied = nil
			if s.early || l.predecessor != nil && l.predecessor.again {
				s.takeOver()
			}
		case err := <-s.started:
			s.takenOver(err)
		case sig := <-signals.in:
			if action, ok := l.program.Signals[sig]; ok {
				action.do(s, sig)
			}
			if s.atOnce {
				s.cutShort(served)
				return exitFailure, nil
			}
		}
	}
}

// cutShort has Serve end before the drain is over, if it can.
func (s *serving) cutShort(served <-chan error) {
	if s.program.AtOnce == nil {
		return
	}
	s.program.AtOnce()
	select {
	case <-served:
	case <-time.After(lastWait):
	}
}

// reloadSignal begins a reload, unless it is too late for one.
func (s *serving) reloadSignal(sig os.Signal) {
	switch {
	case s.heir != nil:
		s.passOn(sig)
		return
	case s.signaled:
		return
	}
	s.notifier.Reloading()
	select {
	case s.reload <- sig:
	default:
	}
}

// terminate begins the drain, or ends it.
func (s *serving) terminate(sig os.Signal) {
	if s.signaled {
		s.env.Log.Error("second signal, ending at once", "signal", sig.String())
		s.atOnce = true
		return
	}
	s.env.Log.Info("stopping", "signal", sig.String())
	s.signaled = true
	if s.heir == nil {
		s.notifier.Stopping()
		// The next one may start while this one ends what it has.
		s.removePidfile()
	}
	s.wane()
	s.cancel(errors.New(unix.SignalName(sig.(syscall.Signal)))) // which Serve may want to name
}

// wane is where the end begins.
func (s *serving) wane() {
	if s.state.n.Load() == draining {
		return
	}
	s.state.set(draining)
	close(s.live.draining)
	s.extend = time.Tick(extendEvery)
	if s.common.DrainTimeout > 0 {
		s.overdue = time.After(s.common.DrainTimeout)
	}
}

// call runs Serve. A panic there is an error: it is logged with its trace, and
// what the start made is cleaned up.
func (l *instance) call(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			logging.Say(l.std.Stderr, fmt.Sprintf("%s: panic: %v\n\n%s", l.program.Name, r, debug.Stack()))
		}
	}()
	return l.program.Serve(ctx, l.env)
}

// end is what is left to say after Serve, or the error it has failed with.
func (l *instance) end(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		l.notifier.Stopping()
	}
	if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return err
	}
	l.env.Log.Info("stopped")
	return nil
}

// sayReady is Env.Ready. Signs of life start after the first one. Who was told to end meanwhile takes over from nobody.
func (l *instance) sayReady() {
	if l.state.n.Load() == draining {
		return
	}
	l.ready.once.Do(func() {
		l.relieve()
		l.state.set(ready)
	})
	l.notifier.Ready()
	l.ready.watch.Do(func() {
		l.env.Log.Info("ready", "pid", os.Getpid())
		close(l.readied)
		l.ready.begin(l.watch)
	})
}

// watch gives signs of life until done is closed, and says who keeps them back.
func (l *instance) watch(done <-chan struct{}) {
	l.notifier.Watch(l.live.alive, func() {
		if name := l.live.asked.Load(); name != nil {
			l.env.Log.ErrorContext(logging.Earned(context.Background()), "no sign of life for the service manager, something hangs", "what", *name)
		}
	}, done)
}

// readiness is what goes on from the first Ready to the end.
type readiness struct {
	once  sync.Once // what is to be done before
	watch sync.Once // and after it was said
	mu    sync.Mutex
	done  chan struct{} // closed to end the watchdog; nil if it does not run
	ended chan struct{}
}

func (r *readiness) begin(watch func(done <-chan struct{})) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done, r.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(r.ended)
		watch(r.done)
	}()
}

// stop ends the watchdog.
func (r *readiness) stop() {
	r.mu.Lock()
	done, ended := r.done, r.ended
	r.mu.Unlock()
	if done == nil {
		return
	}
	close(done)
	<-ended
}
