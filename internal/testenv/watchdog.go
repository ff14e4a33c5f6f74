package testenv

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A test that hangs is found by what it waits for. Every wait of this package has an end: after Patience, or shortly
// before the time limit of the test binary, the test fails, with a line that names what did not come and the stacks of
// its goroutines; the other tests go on. What waits by other means, such as reading from a connection, is told apart by
// the watchdog that Main starts: shortly before the time limit it shows each test that is still running, fails it, and
// ends its programs and connections, which ends most such waits.

// watched is a running test that uses this package.
type watched struct {
	t         testing.TB
	goroutine string   // its number
	waits     []string // what it waits for, the innermost last
	enders    []func() // end its programs and connections
	shown     bool     // its stacks are in the log: once is enough
}

var watch struct {
	sync.Mutex
	tests map[testing.TB]*watched
}

// watchedTest makes a test known to the watchdog until its end.
func watchedTest(t testing.TB) *watched {
	watch.Lock()
	defer watch.Unlock()
	w := watch.tests[t]
	if w == nil {
		if watch.tests == nil {
			watch.tests = make(map[testing.TB]*watched)
		}
		w = &watched{t: t, goroutine: goroutineNumber()}
		watch.tests[t] = w
		t.Cleanup(func() {
			watch.Lock()
			defer watch.Unlock()
			delete(watch.tests, t)
		})
	}
	return w
}

// onHang registers what may end a wait of the test that is not one of this package.
func onHang(t testing.TB, end func()) {
	w := watchedTest(t)
	watch.Lock()
	defer watch.Unlock()
	w.enders = append(w.enders, end)
}

// wait is something that a test waits for.
type wait struct {
	test      *watched
	what      string
	goroutine string
	since     time.Time
	until     time.Time
}

// beginWait registers what t waits for from now on.
func beginWait(t testing.TB, what string) *wait {
	now := time.Now()
	w := &wait{test: watchedTest(t), what: what, goroutine: goroutineNumber(), since: now, until: now.Add(Patience)}
	if limited, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if end, ok := limited.Deadline(); ok {
			if end = end.Add(-margin()); end.Before(w.until) {
				w.until = end
			}
		}
	}
	watch.Lock()
	defer watch.Unlock()
	w.test.waits = append(w.test.waits, what)
	return w
}

func (w *wait) end() {
	watch.Lock()
	defer watch.Unlock()
	if i := slices.Index(w.test.waits, w.what); i >= 0 {
		w.test.waits = slices.Delete(w.test.waits, i, i+1)
	}
}

// left is how long the wait may go on. Something that is there already is never too late.
func (w *wait) left() time.Duration { return max(0, time.Until(w.until)) }

// fail ends the test, which must be the one whose goroutine calls it.
func (w *wait) fail() {
	w.test.t.Helper()
	w.test.t.Fatal(w.report())
}

// report tells what did not come.
func (w *wait) report() string {
	text := fmt.Sprintf("watchdog: %s: after %v still waiting for: %s", w.test.t.Name(), time.Since(w.since).Round(time.Millisecond), w.what)
	watch.Lock()
	defer watch.Unlock()
	if !w.test.shown {
		w.test.shown = true
		text += "\n" + stacks(w.goroutine)
	}
	return text
}

// margin is how long before the time limit of the test binary the watchdog looks at the tests: long enough for them to
// end in order.
func margin() time.Duration {
	limit := 10 * time.Minute
	if f := flag.Lookup("test.timeout"); f != nil {
		if d, ok := f.Value.(flag.Getter).Get().(time.Duration); ok && d > 0 {
			limit = d
		}
	}
	return min(30*time.Second, limit/5)
}

// startWatchdog looks at the tests once, shortly before the time limit of the test binary.
func startWatchdog() {
	flag.Parse()
	f := flag.Lookup("test.timeout")
	if f == nil {
		return
	}
	if d, ok := f.Value.(flag.Getter).Get().(time.Duration); ok && d > 0 {
		// Waits of this package end by themselves at that time; it shows the others.
		time.AfterFunc(d-margin()*3/4, bark)
	}
}

// bark shows each test that is still running, fails it, and ends what it may be waiting for.
func bark() {
	watch.Lock()
	var ends []func()
	for _, w := range watch.tests {
		what := "something that is none of testenv's waits"
		if len(w.waits) > 0 {
			what = w.waits[len(w.waits)-1]
		}
		text := fmt.Sprintf("watchdog: %s: shortly before the time limit still waiting for: %s\n%s", w.t.Name(), what, stacks(w.goroutine))
		fmt.Fprintln(os.Stderr, text) // the log of a test that does not end is never shown
		w.t.Error(text)
		ends = append(ends, w.enders...)
	}
	watch.Unlock()
	for _, end := range ends {
		end()
	}
}

// goroutineNumber gives the number of the calling goroutine, as stacks show it.
func goroutineNumber() string {
	var buf [40]byte
	header := string(buf[:runtime.Stack(buf[:], false)])
	_, header, _ = strings.Cut(header, " ")
	number, _, _ := strings.Cut(header, " ")
	return number
}

// stacks gives the stack of a goroutine and of those that it has started.
func stacks(goroutine string) string {
	buf := make([]byte, 1<<20)
	for n := runtime.Stack(buf, true); ; n = runtime.Stack(buf, true) {
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	const most = 20
	var own, started []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		switch {
		case strings.HasPrefix(stack, "goroutine "+goroutine+" "):
			own = append(own, stack)
		case strings.Contains(stack, " in goroutine "+goroutine+"\n") && len(started) < most:
			started = append(started, stack)
		}
	}
	return strings.Join(append(own, started...), "\n\n")
}
