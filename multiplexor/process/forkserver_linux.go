package process

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"postern/internal/evloop"
	"postern/multiplexor/pool"
)

// forkServer is one process that has loaded a filter, or is loading it.
type forkServer struct {
	forks *ForkServers
	made  chan newProcess // the process that is being made
	pid   int
	since time.Duration // when it had loaded the filter

	control, stderr evloop.Stream
	timer           evloop.Timer // for the load, and then for the oldest fork
	ready           bool         // it has said hello
	dropped         bool
	down            bool

	sent     map[int]pendingStart // forks asked for
	lastID   int
	children int    // workers it keeps
	words    string // what it has written to standard error
	gate     pool.LineLimit
}

// started takes over the new process.
func (s *forkServer) started() {
	var b newProcess
	select {
	case b = <-s.made:
	default:
		return // Close has it
	}
	if b.err != nil {
		s.forks.lost(s, "was not started: "+b.err.Error())
		return
	}
	s.adopt(b)
	if s.dropped {
		s.shutDown(0)
		return
	}
	if err := errors.Join(s.control.Watch(true), s.stderr.Watch(true)); err != nil {
		s.fail(err.Error())
	}
}

// adopt notes what the server's process is.
func (s *forkServer) adopt(b newProcess) {
	s.pid = b.pid
	s.control.Open(s.forks.loop, b.control, (*serverControl)(s))
	s.stderr.Open(s.forks.loop, b.stderr, (*serverError)(s))
}

// fork asks for a worker.
func (s *forkServer) fork(st pendingStart) {
	s.lastID++
	if len(s.sent) == 0 {
		s.forks.loop.Start(&s.timer, s.forks.ForkLimit)
	}
	s.sent[s.lastID] = st
	s.say("fork", s.lastID)
}

// say writes a line. What goes wrong with the socket is seen when it is read.
func (s *forkServer) say(word string, number int) {
	if s.control.IsOpen() {
		_ = s.control.Write(fmt.Appendf(nil, "%s %d\n", word, number))
	}
}

// line takes one line of the server.
func (s *forkServer) line(line string) {
	words := strings.Fields(line)
	switch {
	case len(words) == 2 && words[0] == "hello" && words[1] == "1" && !s.ready:
		s.ready = true
		s.forks.loop.Timers.Stop(&s.timer)
		s.forks.loaded(s)
	case len(words) >= 2 && words[0] == "child" && s.ready:
		var n [7]int
		want := 6
		if s.forks.program.StatusPipe {
			want = 7
		}
		ok := len(words) == want
		for i := 1; ok && i < want; i++ {
			var err error
			n[i], err = strconv.Atoi(words[i])
			ok = err == nil && n[i] >= 0
		}
		if !ok {
			s.fail(fmt.Sprintf("said %.100q", line)) // the worker asked for is started another way
			return
		}
		st, known := s.Answered(n[1])
		if !known {
			s.fail(fmt.Sprintf("said %.100q", line))
			return
		}
		s.child(st, n[1], n[2], n[3:want])
	case len(words) >= 2 && words[0] == "failed" && s.ready:
		id, _ := strconv.Atoi(words[1])
		if st, known := s.Answered(id); known {
			st.done(nil, fmt.Errorf("fork failed: %.200q", strings.Join(words[2:], " ")))
			return
		}
		s.fail(fmt.Sprintf("said %.100q", line))
	default:
		s.fail(fmt.Sprintf("said %.100q", line))
	}
}

// Answered takes note of the answer to a fork.
func (s *forkServer) Answered(id int) (pendingStart, bool) {
	st, known := s.sent[id]
	delete(s.sent, id)
	if len(s.sent) == 0 {
		s.forks.loop.Timers.Stop(&s.timer)
	} else if known {
		s.forks.loop.Start(&s.timer, s.forks.ForkLimit)
	}
	return st, known
}

// checkDone ends a server of an old generation after its last worker.
func (s *forkServer) checkDone() {
	f := s.forks
	if s != f.current && s != f.next && s != f.before && s.children == 0 && len(s.sent) == 0 {
		s.shutDown(shutDownWait)
	}
}

// tooSlow: the time for a load or a fork is over.
func (s *forkServer) tooSlow() {
	if s.ready {
		s.fail("did not answer")
	} else {
		s.fail(fmt.Sprintf("was not ready after %v", s.forks.LoadLimit))
	}
}

// fail gives up a server. Its workers are not harmed.
func (s *forkServer) fail(how string) {
	if s.down {
		return
	}
	s.shutDown(0)
	s.forks.lost(s, how)
}

// drop ends a server that nobody waits for any more.
func (s *forkServer) drop() {
	s.dropped = true
	if s.pid != 0 {
		wait := shutDownWait
		if !s.ready {
			wait = 0 // it is loading, and does not look
		}
		s.shutDown(wait)
		return
	}
	if s.forks.stopped {
		// The loop may not turn any more.
		b := <-s.made
		if b.err != nil {
			delete(s.forks.servers, s)
			return
		}
		s.adopt(b)
		s.shutDown(0)
	}
}

// shutDownWait is how long a server may take to see that its socket is closed.
const shutDownWait = 2 * time.Second

// shutDown closes the control socket, which is the server's sign to end, makes sure of
// it after a while, and waits for the process.
func (s *forkServer) shutDown(wait time.Duration) {
	if s.down || s.pid == 0 {
		return
	}
	s.down = true
	f := s.forks
	f.loop.Timers.Stop(&s.timer)
	s.control.Close()
	pid := s.pid
	f.ending.Go(func() {
		how := waitOrKill(pid, wait)
		f.loop.Post(func() { s.gone(how) })
	})
}

// gone: the process is no more.
func (s *forkServer) gone(how string) {
	for range maxDrain {
		if !s.stderr.IsOpen() || !s.stderr.ReadMore() {
			break
		}
	}
	s.takeWords(s.stderr.Rest())
	s.stderr.Close()
	if s.forks.servers[s] {
		s.forks.lost(s, how)
	}
}

// serverControl and serverError are the handlers of a server's streams.
type (
	serverControl forkServer
	serverError   forkServer
)

// maxControlLine bounds what a server may write without LF.
const maxControlLine = 4096

func (c *serverControl) Input(_ *evloop.Stream, b []byte) (taken int) {
	s := (*forkServer)(c)
	for s.control.IsOpen() {
		i := bytes.IndexByte(b[taken:], '\n')
		if i < 0 {
			break
		}
		line := string(b[taken : taken+i])
		taken += i + 1
		s.line(line)
	}
	if len(b)-taken > maxControlLine {
		s.fail("wrote a line without end")
		return len(b)
	}
	return taken
}

// Ended: the server has ended, or wants no more to do with us. Nothing is started before
// its end: how it ended belongs into the log, and it ends at once.
func (c *serverControl) Ended(*evloop.Stream, error) { (*forkServer)(c).shutDown(shutDownWait) }

func (c *serverControl) Flushed(_ *evloop.Stream, err error) {
	if err != nil {
		(*forkServer)(c).shutDown(shutDownWait)
	}
}

func (e *serverError) Input(_ *evloop.Stream, b []byte) (taken int) {
	s := (*forkServer)(e)
	for taken < len(b) {
		i := bytes.IndexByte(b[taken:], '\n')
		if i < 0 && len(b)-taken < maxStderrPart {
			break
		}
		size := min(len(b)-taken, maxStderrPart)
		if i >= 0 && i < size {
			size = i + 1
		}
		s.takeWords(b[taken : taken+size])
		taken += size
	}
	return taken
}

func (e *serverError) Ended(*evloop.Stream, error)   {}
func (e *serverError) Flushed(*evloop.Stream, error) {}

// takeWords notes and logs a line of standard error.
func (s *forkServer) takeWords(line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return
	}
	if s.words != "" && len(s.words) < maxWords {
		s.words += "; "
	}
	s.words += pool.Printable(string(line[:min(len(line), max(maxWords-len(s.words), 0))]))
	if ok, _ := s.gate.Pass(s.forks.loop.Now()); ok {
		s.forks.event(slog.LevelInfo, fmt.Sprintf("Fork server (pid %d) stderr: %s", s.pid, line))
	}
}

// maxStderrPart bounds what is logged as one line.
const maxStderrPart = 1023

// maxWords bounds what is kept of standard error.
const maxWords = 500

// complaint is what the server wrote to standard error, for a log line.
func (s *forkServer) complaint() string {
	if s.words == "" {
		return ""
	}
	return ": " + s.words
}
