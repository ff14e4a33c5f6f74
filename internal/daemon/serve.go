package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"postern/internal/logging"
)

// signals are those of a program, and SIGHUP apart from the others.
type signals struct {
	in     <-chan os.Signal
	hangup chan os.Signal
	stop   func()
}

// newSignals takes over the signals of the process, unless in replaces them.
func newSignals(in <-chan os.Signal) *signals {
	s := &signals{in: in, hangup: make(chan os.Signal, 1), stop: func() {}}
	// SIGPIPE is taken, to the very last line, so that a reader of standard error that goes away does
	// not end the program; unlike an ignored signal it is not inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if in == nil {
		ch := make(chan os.Signal, 16)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
		s.in, s.stop = ch, func() { signal.Stop(ch) }
	}
	return s
}

// extendEvery is how often the service manager hears that a drain goes on, whatever time it gives to stops.
const extendEvery = 5 * time.Second

// serving is what the signals have made of a running Serve.
type serving struct {
	*instance
	ctx    context.Context
	cancel context.CancelFunc // begins the drain

	signaled bool       // to end
	next     *successor // that is starting
	relieved bool       // it has taken over
	started  chan error // what became of its start

	overdue, extend <-chan time.Time
}

// serve runs Serve as far as the signals let it and gives the exit status.
func (l *instance) serve(signals *signals) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &serving{instance: l, ctx: ctx, cancel: cancel, started: make(chan error, 1)}
	served := make(chan error, 1)
	go func() { served <- l.call(ctx) }()
	if l.program.ownProcess {
		go ReapOrphans(nil)
	}
	for {
		select {
		case err := <-served:
			return l.end(ctx, err)
		case <-s.extend:
			l.notifier.ExtendTimeout(2 * extendEvery)
		case <-s.overdue:
			// As the settings want it: that is no failure.
			l.env.Log.Warn("drain took too long, ending at once", "limit", l.common.DrainTimeout)
			return 0
		case err := <-s.started:
			s.takenOver(err)
		case sig := <-signals.in:
			switch {
			case sig == syscall.SIGHUP:
				s.hangup(signals.hangup)
			case sig == syscall.SIGUSR2:
				s.takeOver()
			case sig != syscall.SIGTERM && sig != syscall.SIGINT:
			case s.signaled:
				l.env.Log.Error("second signal, ending at once", "signal", sig.String())
				return exitFailure
			default:
				l.env.Log.Info("stopping", "signal", sig.String())
				s.signaled = true
				s.stop()
			}
		}
	}
}

// hangup begins a reload, unless it is too late for one.
func (s *serving) hangup(to chan<- os.Signal) {
	if s.signaled || s.relieved {
		return
	}
	s.notifier.Reloading()
	select {
	case to <- syscall.SIGHUP:
	default:
	}
}

// stop begins the drain.
func (s *serving) stop() {
	if !s.relieved {
		s.notifier.Stopping()
		// The next one may start while this one ends what it has.
		s.removePidfile()
	}
	s.wane()
	s.cancel()
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

// end returns the exit status after Serve.
func (l *instance) end(ctx context.Context, err error) int {
	if ctx.Err() == nil {
		l.notifier.Stopping()
	}
	if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		l.complain("failed", err)
		return failure(err)
	}
	l.env.Log.Info("stopped")
	return 0
}

// sayReady is Env.Ready. Signs of life start after the first one.
func (l *instance) sayReady() {
	l.ready.once.Do(func() {
		l.relieve()
		l.state.set(ready)
		if l.predecessor != nil && l.predecessor.again {
			_ = syscall.Kill(os.Getpid(), syscall.SIGUSR2)
		}
	})
	l.notifier.Ready()
	l.ready.watch.Do(func() {
		l.env.Log.Info("ready", "pid", os.Getpid())
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
