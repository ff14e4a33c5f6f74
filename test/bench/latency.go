package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// soon is within what a listener is to know of a change. That is a goal with up
// to mostWoken listeners on this machine: two processors take about as long to
// wake a hundred threads, whoever wakes them.
const (
	soon      = time.Millisecond
	mostWoken = 10
)

// latency measures how soon listeners read of a change of an otherwise idle
// pool, and beside it what this machine takes for the least there can be: one
// write to each of as many sockets.
//
// What measures must not be what is measured. The listeners are a C program of
// a thread each. The requests and the bare writes are made from one thread with
// system calls that block, and nothing is collected meanwhile. The delay of a
// message is from the time in it to the return of read(2), by the same clock;
// that clock is watched for steps. As the time in a message is the daemon's
// own word, the time from a client's request to the first message of it is
// taken too, without it.
func (b *bench) latency() error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	reader, err := b.compile("reader")
	if err != nil {
		return err
	}
	requests := pick(b.quick, 300, 1600)
	fmt.Printf("\nFrom a change of the pool to a listener's reading of it; %d requests with pauses, each of which changes the state twice\n", requests)
	for _, listeners := range []int{1, 10, 100} {
		if err := b.latencyOf(reader, listeners, requests); err != nil {
			return fmt.Errorf("%d listeners: %w", listeners, err)
		}
		b.children.stop()
	}
	return nil
}

func (b *bench) latencyOf(reader string, listeners, requests int) error {
	s, err := b.startServer(fmt.Sprintf("latency-%d", listeners), poolKind{program: b.ours("multiplexor"), workers: 8, notify: true})
	if err != nil {
		return err
	}
	pool, err := b.startReader(reader, s.notify, listeners)
	if err != nil {
		return err
	}
	bare, err := newBareServer(filepath.Join(b.dir, fmt.Sprintf("bare-%d", listeners)))
	if err != nil {
		return err
	}
	defer bare.close()
	baseline, err := b.startReaderOf(reader, bare, listeners)
	if err != nil {
		return err
	}
	fd, err := connectKept(s.socket)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	shift := clockShift()
	sent, err := change(fd, bare, requests)
	if err != nil {
		return err
	}
	if moved := clockShift() - shift; moved > 20*time.Microsecond || moved < -20*time.Microsecond {
		fmt.Printf("(the clock was moved by %v meanwhile, which is in the delays)\n", moved)
	}
	poolNotes, err := pool.finish()
	if err != nil {
		return err
	}
	bareNotes, err := baseline.finish()
	if err != nil {
		return err
	}
	b.reportLatency(listeners, sent, poolNotes, bareNotes)
	return nil
}

func (b *bench) reportLatency(listeners int, sent []int64, pool, bare []note) {
	fmt.Printf("\n%d listener%s\n", listeners, pick(listeners > 1, "s", ""))
	ours, least, whole := delays(pool), delays(bare), firstHeard(sent, pool)
	fmt.Printf("  change to read         %s\n", spread(ours))
	fmt.Printf("  a bare socket          %s\n", spread(least))
	fmt.Printf("  request to first read  %s\n", spread(whole))
	if listeners > mostWoken {
		return
	}
	p99, bare99 := percentile(ours, 0.99), percentile(least, 0.99)
	b.goals.add(p99 < soon, fmt.Sprintf("change to read, %d listeners, p99", listeners), fmt.Sprintf("under %v", soon),
		"%v (a bare socket: %v; ratio %.1f)", p99.Round(time.Microsecond), bare99.Round(time.Microsecond), float64(p99)/float64(bare99))
}

// change makes requests with pauses, and a bare message after each, and gives
// the times of the requests.
func change(fd int, bare *bareServer, requests int) (sent []int64, err error) {
	var reply [4096]byte
	for i := range requests {
		pause(time.Duration(1+i%7) * time.Millisecond)
		sent = append(sent, clock(clockMonotonic))
		if _, err := syscall.Write(fd, []byte(relayok+"\n")); err != nil {
			return nil, err
		}
		if n, err := syscall.Read(fd, reply[:]); n <= 0 {
			return nil, fmt.Errorf("read reply: %v", err)
		}
		pause(2 * time.Millisecond)
		for range 2 {
			if err := bare.send(); err != nil {
				return nil, err
			}
			pause(500 * time.Microsecond)
		}
	}
	pause(200 * time.Millisecond)
	return sent, nil
}

// A note is a message that a listener read: when, by CLOCK_MONOTONIC, and how
// long after the time in it.
type note struct {
	listener   int
	when, late int64
}

func delays(notes []note) (d []time.Duration) {
	for _, n := range notes {
		d = append(d, time.Duration(n.late))
	}
	return d
}

// firstHeard gives for each request the time until the first listener read the
// first message of it. Both are in order.
func firstHeard(sent []int64, notes []note) (took []time.Duration) {
	for _, n := range notes {
		if n.listener == 0 && len(sent) > 0 && n.when > sent[0] {
			took = append(took, time.Duration(n.when-sent[0]))
			sent = sent[1:]
		}
	}
	return took
}

// A readerProcess is the program with the listeners.
type readerProcess struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// startReader starts it and waits until it listens.
func (b *bench) startReader(program, socket string, listeners int) (*readerProcess, error) {
	r, err := b.launchReader(program, socket, listeners)
	if err != nil {
		return nil, err
	}
	return r, r.awaitReady()
}

func (b *bench) launchReader(program, socket string, listeners int) (*readerProcess, error) {
	cmd := exec.Command(program, socket, strconv.Itoa(listeners))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if _, err := b.children.run(cmd); err != nil {
		return nil, err
	}
	return &readerProcess{in, bufio.NewReader(out)}, nil
}

func (r *readerProcess) awaitReady() error {
	if line, err := r.out.ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("listeners: %q, %v", line, err)
	}
	return nil
}

// finish takes the notes.
func (r *readerProcess) finish() (notes []note, err error) {
	r.in.Close()
	for {
		line, err := r.out.ReadString('\n')
		if err == io.EOF {
			return notes, nil
		}
		if err != nil {
			return nil, err
		}
		var n note
		if _, err := fmt.Sscan(line, &n.listener, &n.when, &n.late); err != nil {
			return nil, fmt.Errorf("listeners: %q: %w", line, err)
		}
		notes = append(notes, n)
	}
}

// A bareServer writes messages to listeners and does nothing else.
type bareServer struct {
	path string
	fd   int
	fds  []int
	seq  int
}

func newBareServer(path string) (*bareServer, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &bareServer{path: path, fd: fd}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	return s, syscall.Listen(fd, 128)
}

// startReaderOf starts listeners of the bare server.
func (b *bench) startReaderOf(program string, s *bareServer, listeners int) (*readerProcess, error) {
	r, err := b.launchReader(program, s.path, listeners)
	if err != nil {
		return nil, err
	}
	for range listeners {
		fd, _, err := syscall.Accept4(s.fd, syscall.SOCK_CLOEXEC)
		if err != nil {
			return nil, err
		}
		s.fds = append(s.fds, fd)
		if _, err := syscall.Write(fd, []byte("*LIVE 0\n")); err != nil {
			return nil, err
		}
	}
	return r, r.awaitReady()
}

// send writes a message with the present time to all listeners.
func (s *bareServer) send() error {
	s.seq++
	now := time.Duration(clock(clockRealtime))
	line := fmt.Appendf(nil, "%d %d.%06d F 7\n", s.seq, now/time.Second, now%time.Second/time.Microsecond)
	for _, fd := range s.fds {
		if _, err := syscall.Write(fd, line); err != nil {
			return err
		}
	}
	return nil
}

func (s *bareServer) close() {
	for _, fd := range append(s.fds, s.fd) {
		syscall.Close(fd)
	}
}

// The clocks of clock_gettime(2).
const (
	clockRealtime  = 0
	clockMonotonic = 1
)

// clock gives the time of a clock in nanoseconds.
func clock(id uintptr) int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

// clockShift is how far the clocks are apart.
func clockShift() time.Duration { return time.Duration(clock(clockRealtime) - clock(clockMonotonic)) }

// pause sleeps without the runtime's timers.
func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&t, nil)
}
