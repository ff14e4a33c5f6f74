package daemon

import (
	"net"
	"sync"
	"sync/atomic"

	"postern/internal/listen"
)

// liveness is what is asked before the service manager gets a sign of life: each accept loop, the main loop, and what the
// program has named. A part answers by going on; one that hangs does not, and there are no more signs. How long is too
// long is for the service manager to say, with WatchdogSec=.
type liveness struct {
	pulse    chan struct{}
	draining chan struct{}          // closed: loops end, and the drain has a limit of its own
	asked    atomic.Pointer[string] // who has not answered yet; nil: nobody is asked

	mu        sync.Mutex
	questions []question
}

// question is put to one part of the program. It returns when it is answered, or when stop is closed.
type question struct {
	name string
	ask  func(stop <-chan struct{})
}

func newLiveness() *liveness {
	v := &liveness{pulse: make(chan struct{}), draining: make(chan struct{})}
	v.add("main loop", func(stop <-chan struct{}) {
		select {
		case v.pulse <- struct{}{}:
		case <-stop:
		}
	})
	return v
}

func (v *liveness) add(name string, ask func(stop <-chan struct{})) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.questions = append(v.questions, question{name, ask})
}

// WatchLocks has the watchdog ask for locks: there is no sign of life while one is not free.
func (e *Env) WatchLocks(locks map[string]sync.Locker) {
	for name, lock := range locks {
		e.Watchdog("lock of "+name, func() {
			lock.Lock()
			defer lock.Unlock()
		})
	}
}

// watch returns the listeners with an eye on the loops that accept from them.
func (v *liveness) watch(set listen.Set) listen.Set {
	watched := make(listen.Set, len(set))
	for name, group := range set {
		for _, l := range group {
			a := &acceptLoop{Listener: l}
			v.add("accept loop of "+name+" "+l.Addr().String(), a.answer)
			watched[name] = append(watched[name], a)
		}
	}
	return watched
}

// alive returns when all have answered.
func (v *liveness) alive() {
	v.mu.Lock()
	questions := v.questions
	v.mu.Unlock()
	for _, q := range questions {
		select {
		case <-v.draining:
			return
		default:
		}
		v.asked.Store(&q.name)
		q.ask(v.draining)
	}
	v.asked.Store(nil)
}

// acceptLoop is a listener that knows whether somebody waits in Accept, or comes back to it.
type acceptLoop struct {
	net.Listener

	mu     sync.Mutex
	inside int           // calls of Accept
	turned chan struct{} // closed when inside changes; nil while nobody asks
}

// Accept implements [net.Listener].
func (a *acceptLoop) Accept() (net.Conn, error) {
	a.turn(1)
	defer a.turn(-1)
	return a.Listener.Accept()
}

// Unwrap returns the listener below.
func (a *acceptLoop) Unwrap() net.Listener { return a.Listener }

func (a *acceptLoop) turn(by int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inside += by
	if a.turned != nil {
		close(a.turned)
		a.turned = nil
	}
}

// answer returns when the loop waits for a client, or has done a turn.
func (a *acceptLoop) answer(stop <-chan struct{}) {
	a.mu.Lock()
	if a.inside > 0 {
		a.mu.Unlock()
		return
	}
	if a.turned == nil {
		a.turned = make(chan struct{})
	}
	turned := a.turned
	a.mu.Unlock()
	select {
	case <-turned:
	case <-stop:
	}
}
