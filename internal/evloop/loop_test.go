package evloop

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// start runs a loop in the background and ends it with the test.
func start(t *testing.T) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	run := testenv.Go(t, "the loop", l.Run)
	t.Cleanup(func() {
		l.Post(l.Stop)
		run.Wait()
		l.Close()
	})
	return l
}

// on makes a call on the loop and waits for it.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() { f(); close(done) })
	testenv.Receive(t, "a call on the loop", done)
}

func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// recorder is a StreamHandler that notes what it is told.
type recorder struct {
	mu      sync.Mutex
	got     []byte
	take    func(b []byte) int
	ended   chan error
	flushed chan error
}

func newRecorder() *recorder {
	return &recorder{ended: make(chan error, 1), flushed: make(chan error, 1)}
}

func (r *recorder) Input(_ *Stream, b []byte) int {
	n := len(b)
	if r.take != nil {
		n = r.take(b)
	}
	r.mu.Lock()
	r.got = append(r.got, b[:n]...)
	r.mu.Unlock()
	return n
}
func (r *recorder) Ended(_ *Stream, err error)   { r.ended <- err }
func (r *recorder) Flushed(_ *Stream, err error) { r.flushed <- err }

func TestPostKeepsTheOrder(t *testing.T) {
	l := start(t)
	var got []int
	for i := range 1000 {
		l.Post(func() { got = append(got, i) })
	}
	on(t, l, func() {})
	for i, n := range got {
		if n != i {
			t.Fatalf("call %d came as number %d", n, i)
		}
	}
	if len(got) != 1000 {
		t.Errorf("%d calls of 1000", len(got))
	}
}

func TestTimerOnLoop(t *testing.T) {
	l := start(t)
	fired := make(chan error, 1)
	began := time.Now()
	on(t, l, func() { l.Start(&Timer{Do: func() { fired <- nil }}, 30*time.Millisecond) })
	testenv.Receive(t, "the timer", fired)
	if d := time.Since(began); d < 30*time.Millisecond {
		t.Errorf("fired after %v, want at least 30ms", d)
	}
}

// TestStreamReadsInsideInput: what is read from one stream while another's bytes are looked at leaves those alone.
func TestStreamReadsInsideInput(t *testing.T) {
	l := start(t)
	a, toA := pair(t)
	b, toB := pair(t)
	inner, outer := newRecorder(), newRecorder()
	var other *Stream
	outer.take = func([]byte) int { other.ReadNow(); return 0 }
	on(t, l, func() { other = l.Stream(b, inner) })
	for fd, text := range map[int]string{toB: "BBBB", toA: "one\ntwo\n"} {
		if _, err := syscall.Write(fd, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	on(t, l, func() {
		s := l.Stream(a, outer)
		s.ReadNow()
		if string(s.in) != "one\ntwo\n" || string(inner.got) != "BBBB" {
			t.Errorf("kept %q, the other stream read %q", s.in, inner.got)
		}
	})
	for _, fd := range []int{toA, toB} {
		syscall.Close(fd)
	}
}

func TestStreamPartialInput(t *testing.T) {
	l := start(t)
	a, b := pair(t)
	r := newRecorder()
	// Takes whole lines only.
	r.take = func(b []byte) int { return bytes.LastIndexByte(b, '\n') + 1 }
	var s *Stream
	on(t, l, func() { s = l.Stream(a, r); s.Watch(true) })
	for _, text := range []string{"on", "e\ntw", "o\n", "rest"} {
		if _, err := syscall.Write(b, []byte(text)); err != nil {
			t.Fatal(err)
		}
		on(t, l, func() {})
	}
	syscall.Close(b)
	if err := testenv.Receive(t, "the end", r.ended); err != io.EOF {
		t.Errorf("ended with %v, want EOF", err)
	}
	on(t, l, func() {
		if got, rest := string(r.got), string(s.Rest()); got != "one\ntwo\n" || rest != "rest" {
			t.Errorf("took %q and left %q", got, rest)
		}
		s.Close()
		s.Close()
	})
}

func TestStreamWriteWaitsForRoom(t *testing.T) {
	l := start(t)
	a, b := pair(t)
	r := newRecorder()
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB, more than a socket holds
	on(t, l, func() {
		s := l.Stream(a, r)
		if err := s.Write(text); err != nil {
			t.Error(err)
		}
		if s.Pending() == 0 {
			t.Error("1 MiB went into a socket at once")
		}
	})
	f := os.NewFile(uintptr(b), "peer") // non-blocking: Go's poller takes it
	defer f.Close()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("read: %v, equal %v", err, bytes.Equal(got, text))
	}
	if err := testenv.Receive(t, "Flushed", r.flushed); err != nil {
		t.Errorf("Flushed(%v)", err)
	}
}

func TestStreamWriteFailsLater(t *testing.T) {
	l := start(t)
	a, b := pair(t)
	r := newRecorder()
	on(t, l, func() { l.Stream(a, r).Write(make([]byte, 1<<20)) })
	syscall.Close(b)
	if err := testenv.Receive(t, "Flushed", r.flushed); err == nil {
		t.Error("Flushed(nil) although nobody reads")
	}
}

func TestLook(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, b := pair(t)
	s := l.Stream(a, newRecorder())
	defer s.Close()
	if got := s.Look(); got != LookQuiet {
		t.Errorf("nothing sent: %v", got)
	}
	syscall.Write(b, []byte("x"))
	if got := s.Look(); got != LookData {
		t.Errorf("a byte sent: %v", got)
	}
	syscall.Close(b)
	if got := s.Look(); got != LookEnd {
		t.Errorf("closed: %v", got)
	}
}

// closer closes another stream when it is ready.
type closer struct {
	recorder
	others []*Stream
	calls  *int
}

func (c *closer) Input(_ *Stream, b []byte) int {
	*c.calls++
	for _, s := range c.others {
		s.Close()
	}
	return len(b)
}

// TestStaleEventsAreDropped: two streams become ready in the same wait, and the
// first one served closes the second. The second one's event is not delivered,
// not even to a stream that has its descriptor number by then.
func TestStaleEventsAreDropped(t *testing.T) {
	l := start(t)
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	calls := 0
	on(t, l, func() {
		h := &closer{calls: &calls}
		s1, s2 := l.Stream(a1, h), l.Stream(a2, h)
		h.others = []*Stream{s1, s2}
		s1.Watch(true)
		s2.Watch(true)
		syscall.Write(b1, []byte("x"))
		syscall.Write(b2, []byte("x"))
	})
	on(t, l, func() {})
	on(t, l, func() {
		if calls != 1 {
			t.Errorf("%d calls, want 1: the other stream was closed", calls)
		}
	})
	syscall.Close(b1)
	syscall.Close(b2)
}

func listenUnix(t *testing.T) (path string, fd int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = dir + "/s"
	fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 100)); err != nil {
		t.Fatal(err)
	}
	return path, fd
}

func TestListenerAcceptsAll(t *testing.T) {
	l := start(t)
	path, fd := listenUnix(t)
	accepted := make(chan error, 100)
	var ls *Listener
	on(t, l, func() {
		var err error
		ls, err = l.Listen(fd, func(fd int) { l.CloseFD(fd); accepted <- nil }, func(err error) { t.Error(err) })
		if err != nil {
			t.Error(err)
		}
	})
	for range 20 {
		testenv.Dial(t, "unix", path)
	}
	for range 20 {
		testenv.Receive(t, "accept", accepted)
	}
	on(t, l, func() { ls.Close(); ls.Close() })
	if c, err := testenv.Connect("unix", path); err == nil {
		c.Close()
		t.Error("connected after Close")
	}
}

// TestListenerWaitsForDescriptors lowers the limit until accept fails, and sees
// that the loop neither spins nor forgets the connection. The limit is that of
// the whole process, so this test must not run beside others.
func TestListenerWaitsForDescriptors(t *testing.T) {
	l := start(t)
	path, fd := listenUnix(t)
	accepted, failed := make(chan int, 10), make(chan error, 100)
	testenv.Dial(t, "unix", path) // waits in the backlog
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3 // everything open stays, nothing new
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	defer restore()
	var before, after syscall.Rusage
	on(t, l, func() {
		if _, err := l.Listen(fd, func(fd int) { accepted <- fd }, func(err error) { failed <- err }); err != nil {
			t.Error(err)
		}
	})
	if err := testenv.Receive(t, "the failure", failed); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("failed with %v, want EMFILE", err)
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began := time.Now()
	if testenv.Poll(time.Second, func() bool { return len(failed) > 0 }) {
		t.Errorf("told again of the same shortage: %v", testenv.Receive(t, "the failure", failed))
	}
	on(t, l, func() {
		if n := len(l.starved); n > 1 {
			t.Errorf("one listener waits in %d places", n)
		}
	})
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	if used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano(); used > int64(time.Since(began))/5 {
		t.Errorf("%v of CPU in %v without descriptors", time.Duration(used), time.Since(began))
	}
	restore()
	again := testenv.Receive(t, "the connection, when there are descriptors again", accepted)
	on(t, l, func() { l.CloseFD(again) })
}

func BenchmarkEcho(b *testing.B) {
	l, err := New()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	fds, _ := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	syscall.SetNonblock(fds[0], true)
	on(b, l, func() { l.Stream(fds[0], echoHandler{}).Watch(true) })
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		syscall.Write(fds[1], buf)
		syscall.Read(fds[1], buf)
	}
	l.Post(l.Stop)
	testenv.Receive(b, "the end of the loop", done)
}

type echoHandler struct{}

func (echoHandler) Input(s *Stream, b []byte) int { s.Write(b); return len(b) }
func (echoHandler) Ended(*Stream, error)          {}
func (echoHandler) Flushed(*Stream, error)        {}
