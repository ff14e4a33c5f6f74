package pool

import (
	"bytes"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/notify"
)

// fault is why workers that were started last have come to nothing.
type fault struct {
	text       string // "" = nothing is wrong; printable
	since      time.Duration
	activation uint64 // of the newest worker then: only a later one can show that it is over

	quietUntil time.Duration // requests refused for it are counted until then, not logged
	refused    int
}

// setFault notes why a worker has come to nothing.
func (p *Pool) setFault(text string) {
	text = Printable(text)
	if p.fault.text == "" {
		p.fault.since = p.timers.Now()
	}
	p.fault.activation = p.activations
	if text == p.fault.text {
		return
	}
	p.fault.text = text
	p.publishOurs(notify.LetterFault, text)
	p.faultChanged()
}

// blame notes why a worker is of no use that has never been of any, before whoever
// waits for it is told.
func (p *Pool) blame(w *worker, reason string) {
	if p.young(w) && !w.working {
		p.setFault(w.because(reason))
	}
}

// clearFault is told that w works.
func (p *Pool) clearFault(w *worker) {
	if p.fault.text == "" || w.activation <= p.fault.activation {
		return
	}
	p.fault = fault{}
	p.faultChanged()
	p.log.Add(slog.LevelInfo, "Workers can be started again")
	p.publishOurs(notify.LetterFault, "")
}

// faultChanged tells whoever wants to know.
func (p *Pool) faultChanged() {
	if p.OnFault != nil {
		p.OnFault()
	}
}

// publishOurs publishes what listeners to the original do not know.
func (p *Pool) publishOurs(letter byte, text string) {
	if !p.limits.Original {
		p.publish(letter, text)
	}
}

// setWorking counts the workers that have shown that they work.
func (p *Pool) setWorking(w *worker, working bool) {
	if w.working == working {
		return
	}
	w.working = working
	if working {
		p.working++
		p.clearFault(w)
	} else {
		p.working--
	}
	p.publishOurs(notify.LetterWorking, strconv.Itoa(p.working))
}

// logRefused logs that a request was refused for want of a worker, and why; not for
// each of many.
func (p *Pool) logRefused() {
	const text = "Unable to activate worker"
	f := &p.fault
	if p.limits.Original || f.text == "" {
		p.event(slog.LevelError, "%s", text)
		return
	}
	now := p.timers.Now()
	f.refused++
	if now < f.quietUntil {
		return
	}
	p.log.Add(slog.LevelError, fmt.Sprintf("%s: %s (%d requests refused for this)", f.text, text, f.refused))
	f.refused, f.quietUntil = 0, now+refusedInterval
}

// refusedInterval is the time between log lines about refused requests.
const refusedInterval = 10 * time.Second

// greetAfter is how long a new worker may be without a request before it is asked for a
// sign of life.
const greetAfter = time.Second

// greet asks an idle worker for a sign of life. It stays idle: a request that comes
// before the answer waits in its pipe.
func (p *Pool) greet(w *worker) {
	if err := w.child.Send([]byte(probeLine + "\n")); err != nil {
		return // it is ending, and that is seen
	}
	w.greeting = true
	w.arm(phaseGreet, p.limits.ReloadTimeout)
}

const noGreeting = "No answer to ping"

// greeted takes the first line of a worker that was greeted.
func (w *worker) greeted(b []byte) (taken int) {
	p := w.pool
	i := bytes.IndexByte(b, '\n')
	if i < 0 && len(b) <= p.limits.MaxAnswer {
		return 0
	}
	w.greeting = false
	if w.phase == phaseGreet {
		w.disarm()
	}
	line := string(bytes.TrimRight(b[:max(i, 0)], "\r\n"))
	// Simple workers say the same to every line. Where a request is behind the ping
	// already, one that says anything else than it should may mean anything by its next
	// line, which would be taken for the answer to that.
	if i < 0 || mxproto.IsError(line) || line != probeAnswer && w.req != nil {
		w.broke("answers %q to ping", head(b))
		scan := p.fail(w, FailAnswer)
		p.kill(w, wrongGreeting, true)
		p.endScan(w, scan)
		return len(b)
	}
	p.setWorking(w, true)
	if i+1 == len(b) {
		return len(b)
	}
	return i + 1 + w.GotOutput(b[i+1:])
}

const wrongGreeting = "Wrong answer to ping"

// Of what a worker writes to standard error the beginning and the end are kept, for
// whoever asks what it died of.
const (
	maxFirstWords = 300
	maxLastWords  = 200
)

// note keeps a line of standard error.
func (w *worker) note(line []byte) {
	line = bytes.TrimSpace(line)
	switch {
	case len(line) == 0:
	case len(w.firstWords)+len(line) <= maxFirstWords:
		if len(w.firstWords) > 0 {
			w.firstWords = append(w.firstWords, "; "...)
		}
		w.firstWords = append(w.firstWords, line...)
	case len(w.firstWords) == 0:
		w.firstWords = append(w.firstWords, line[:maxFirstWords]...)
	default:
		w.lastWords = append(w.lastWords[:0], line[:min(len(line), maxLastWords)]...)
	}
}

// forget drops what was kept of standard error.
func (w *worker) forget() { w.firstWords, w.lastWords = w.firstWords[:0], w.lastWords[:0] }

// words is what was kept of standard error.
func (w *worker) words() string {
	text := string(w.firstWords)
	if len(w.lastWords) > 0 {
		text += " ... " + string(w.lastWords)
	}
	return Printable(text)
}

// because puts what a worker wrote to standard error before how it ended.
func (w *worker) because(how string) string {
	if w.child != nil {
		w.child.ReadWords()
	}
	if words := w.words(); words != "" {
		return words + " (" + how + ")"
	}
	return how
}

// StatusText says in words how the pool is doing, what is wrong first.
func (p *Pool) StatusText() string {
	text := fmt.Sprintf("%d of %d workers running, %d working, %d busy, %d requests waiting, %d messages scanned",
		p.running(), p.limits.Max, p.working, p.count[busy], p.queue.len, p.messages)
	if why, failed := strings.CutPrefix(p.reload.outcome, rereadFailed); failed {
		text = "reread has failed:" + why + "; " + text
	}
	if p.fault.text != "" {
		text = "workers come to nothing: " + p.fault.text + "; " + text
	}
	return text
}

// AppendHealth appends a line for each thing.
func (p *Pool) AppendHealth(b []byte) []byte {
	b = fmt.Appendf(b, "Working %d\nStartable %d\nRereads %d\n", p.working, p.count[stopped], p.reload.number)
	switch {
	case p.reload.number == 0:
	case p.reload.outcome == "":
		b = append(b, "Reread running\n"...)
	default:
		b = fmt.Appendf(b, "Reread %s\n", p.reload.outcome)
	}
	if p.fault.text != "" {
		b = fmt.Appendf(b, "FaultAge %d\nFault %s\n", (p.timers.Now()-p.fault.since)/time.Second, p.fault.text)
	}
	return b
}
