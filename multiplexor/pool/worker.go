package pool

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/evloop"
	"postern/internal/notify"
	"postern/internal/percent"
)

// state of a worker slot.
type state int8

const (
	stopped state = iota // no process
	idle                 // a process that waits for a line; it may still be loading
	busy                 // it has a request
	killed               // told to go, not yet gone
	states
)

var (
	stateNames   = [states]string{"Stopped", "Idle", "Busy", "Killed"}
	stateLetters = [states]byte{'S', 'I', 'B', 'K'}
)

// String returns the name that replies and events have for the state.
func (s state) String() string { return stateNames[s] }

const (
	killWait = 10 * time.Second // between end of file, SIGTERM and SIGKILL
	// A worker that has closed its output should be gone at once; if it is not, it
	// is of no use.
	endWait = time.Second
	// A process that dies this young without an answer counts as failed to start.
	youngAge = 10 * time.Second

	tagSource = 63  // bytes of a request that make its tag
	tagLimit  = 200 // bytes of a tag set by a worker
)

// worker is one of the numbered slots, with or without a process in it.
type worker struct {
	pool  *Pool
	n     int
	state state
	turn  int     // which of the pool's state changes its last one was
	child Process // nil while Stopped
	req   *Request

	starting    bool // a process is being started; the state is still Stopped
	available   bool // in pool.idle
	dying       bool // its output is closed: it gets no request
	lastKind    Kind
	activation  uint64           // place in the order of all starts
	generation  int              // of the filter rules it has loaded
	limit       int              // requests until it is retired
	replacement replacementState // of one that is being retired

	requests, scans, answers int
	started, first, changed  time.Duration // first is valid if requests were given to it
	begun                    time.Duration // of the request at hand
	weighed                  time.Duration // when its memory was looked at
	used                     bool

	tag         []byte // raw beginning of the request, or the worker's own text
	tagRaw      bool
	queueID     string // of the last request that had one, for its stderr lines
	outOfMemory bool
	stderr      LineLimit
	greeting    bool // it was asked for a sign of life and has not answered yet
	working     bool // it has answered something, and goes on

	firstWords, lastWords []byte // on standard error

	timer evloop.Timer
	phase phase

	prev, next *worker // in idleSet.fresh
	heapAt     int
}

// phase says what the worker's timer is for.
type phase int8

const (
	phaseNone   phase = iota
	phaseStart        // the request waits for a process
	phaseWrite        // the request is being written
	phaseAnswer       // the answer is awaited
	phaseEnd          // its output is closed, its end is awaited
	phaseTerm         // SIGTERM comes next
	phaseKill         // SIGKILL comes next
	phaseNew          // it has no request; a sign of life comes next
	phaseGreet        // which is awaited
)

func (w *worker) arm(ph phase, d time.Duration) {
	w.phase = ph
	w.pool.timers.Start(&w.timer, d)
}

func (w *worker) disarm() {
	w.phase = phaseNone
	w.pool.timers.Stop(&w.timer)
}

// expired is what the worker's timer does.
func (w *worker) expired() {
	p := w.pool
	ph := w.phase
	w.phase = phaseNone
	switch ph {
	case phaseStart:
		p.unreserve(w, FailStart)
	case phaseWrite:
		p.talkFailed(w)
	case phaseAnswer:
		p.busyTimeout(w)
	case phaseEnd:
		p.cause = w.because("closed its output")
		p.blame(w, "closed its output")
		scan := p.fail(w, FailDied)
		p.kill(w, "Worker closed its output", true)
		p.endScan(w, scan)
	case phaseTerm:
		p.event(slog.LevelInfo, "Worker %d (pid %d) taking too long to exit; sending SIGTERM", w.n, w.pid())
		w.child.Signal(syscall.SIGCONT)
		w.child.Signal(syscall.SIGTERM)
		w.arm(phaseKill, killWait)
	case phaseNew:
		p.greet(w)
	case phaseGreet:
		p.kill(w, noGreeting, true)
	case phaseKill:
		p.event(slog.LevelInfo, "Worker %d (pid %d) taking way too long to exit; sending SIGKILL", w.n, w.pid())
		w.child.Signal(syscall.SIGCONT)
		w.child.Kill()
	}
}

func (w *worker) pid() int {
	if w.child == nil {
		return -1
	}
	return w.child.Pid()
}

// GotOutput takes bytes from standard output. Only a worker that has a request
// may write, and only one line.
func (w *worker) GotOutput(b []byte) (taken int) {
	p := w.pool
	if w.state == killed || w.dying {
		return len(b)
	}
	if w.greeting {
		return w.greeted(b)
	}
	if w.req == nil {
		w.broke("wrote %q although it had no request", head(b))
		p.kill(w, "Unexpected output", true)
		return len(b)
	}
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0 && len(b) <= p.limits.MaxAnswer:
		return 0
	case w.child.Unread():
		// It was not meant for this client, and what is left of the request would be in
		// front of the next one.
		w.broke("wrote %q before it had read its request", head(b))
	case i < 0 || i+1 > p.limits.MaxAnswer:
		w.broke("wrote an answer of more than %d bytes", p.limits.MaxAnswer)
	case i+1 < len(b):
		w.broke("wrote %q after its answer", head(b[i+1:]))
	default:
		p.answer(w, b)
		return len(b)
	}
	p.blame(w, "Unexpected output")
	scan := p.fail(w, FailAnswer)
	p.kill(w, "Unexpected output", true)
	p.endScan(w, scan)
	return len(b)
}

// broke logs and notes what a worker has done against the protocol.
func (w *worker) broke(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.note([]byte("it " + text))
	w.pool.log.Add(slog.LevelError, fmt.Sprintf("Worker %d (pid %d) %s", w.n, w.pid(), text))
}

// head is the beginning of foreign text for a log line.
func head(b []byte) []byte { return b[:min(len(b), 100)] }

// OutputEnded is the first sign that a worker is ending. What it wrote of an
// answer without LF is dropped: half a verdict is none.
func (w *worker) OutputEnded() {
	if w.state == killed || w.dying {
		return
	}
	w.dying = true
	w.pool.idle.remove(w)
	w.arm(phaseEnd, endWait)
}

// InputFlushed is told when a line that did not fit into the pipe is through.
func (w *worker) InputFlushed(err error) {
	if w.req == nil || w.dying || w.state != busy {
		return
	}
	if err != nil {
		w.pool.talkFailed(w)
		return
	}
	w.arm(phaseAnswer, w.pool.limits.BusyTimeout)
}

// setTag notes the beginning of a request; it is decoded when someone asks.
func (w *worker) setTag(line []byte) {
	w.tag = append(w.tag[:0], line[:min(len(line), tagSource)]...)
	w.tagRaw = true
}

// Tag returns the status tag: one line of printable text, "" when not Busy.
func (w *worker) Tag() string {
	if len(w.tag) == 0 || !w.tagRaw {
		return string(w.tag)
	}
	raw, _, _ := bytes.Cut(w.tag, []byte("\n"))
	if i := bytes.IndexByte(raw, ' '); i >= 0 {
		if j := bytes.IndexByte(raw[i+1:], ' '); j >= 0 {
			raw = raw[:i+1+j]
		}
	}
	return tagText(string(raw))
}

// changeWord begins the text of an S event that is not a tag.
const changeWord = "StateChange"

// tagText decodes a tag. What could be taken for something else stays encoded: text
// that begins like a change of state, and what would be decoded to other text by a
// program that decodes replies, as md-mx-ctrl does.
func tagText(encoded string) string {
	s := Printable(percent.Decode(encoded))
	if percent.Decode(s) != s {
		s = strings.ReplaceAll(s, "%", "%25")
	}
	if rest := strings.TrimLeft(s, " "); strings.HasPrefix(rest, changeWord) {
		s = s[:len(s)-len(rest)] + fmt.Sprintf("%%%02X", rest[0]) + rest[1:]
	}
	return s
}

// Printable makes every byte a space that is not printable ASCII.
func Printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}

// GotStatus takes bytes of the status pipe: each line becomes the tag.
func (w *worker) GotStatus(b []byte) (taken int) {
	last := ""
	for {
		i := bytes.IndexByte(b[taken:], '\n')
		if i < 0 {
			break
		}
		if line := b[taken : taken+i]; len(line) > 0 {
			last = tagText(string(line[:min(len(line), maxStatusLine)]))
		}
		taken += i + 1
	}
	if len(b)-taken > maxStatusLine {
		taken = len(b) // no line, or none that anyone could read
	}
	if last == "" || w.state != busy {
		return taken
	}
	w.tag = append(w.tag[:0], last[:min(len(last), tagLimit)]...)
	w.tagRaw = false
	w.pool.publish(notify.LetterStatus, strconv.Itoa(w.n)+" "+string(w.tag))
	return taken
}

const (
	maxStatusLine = 4096
	maxStderrLine = 1023
)

// GotStderr takes bytes of standard error: a line each for the log, if that is wanted,
// bounded in length and number.
func (w *worker) GotStderr(b []byte, end bool) (taken int) {
	if bytes.Contains(b, []byte("Out of memory!")) {
		w.outOfMemory = true
	}
	for taken < len(b) {
		i := bytes.IndexByte(b[taken:], '\n')
		size := i
		switch {
		case i < 0 && !end && len(b)-taken < maxStderrLine:
			return taken
		case i < 0 || i > maxStderrLine:
			size = min(len(b)-taken, maxStderrLine)
			i = size - 1
		}
		w.note(b[taken : taken+size])
		if w.pool.limits.LogStderr {
			w.logStderr(b[taken : taken+size])
		}
		taken += i + 1
	}
	return taken
}

func (w *worker) logStderr(line []byte) {
	p := w.pool
	if len(line) == 0 {
		return
	}
	pass, missed := w.stderr.Pass(p.timers.Now())
	if missed > 0 {
		p.log.Add(slog.LevelInfo, fmt.Sprintf("Worker %d stderr: %d lines not logged", w.n, missed))
	}
	if !pass {
		return
	}
	text := fmt.Sprintf("Worker %d stderr: %s", w.n, line)
	if w.queueID != "" {
		text = w.queueID + ": " + text
	}
	p.log.Add(slog.LevelInfo, text)
}

// LineLimit lets through a bounded number of lines a second.
type LineLimit struct {
	second time.Duration
	lines  int
}

const linesPerSecond = 200

// Pass reports whether a line may be logged now, and how many were not since the
// last one that was.
func (g *LineLimit) Pass(now time.Duration) (ok bool, missed int) {
	if second := now.Truncate(time.Second); second != g.second {
		missed = max(g.lines-linesPerSecond, 0)
		g.second, g.lines = second, 0
	}
	g.lines++
	return g.lines <= linesPerSecond, missed
}
