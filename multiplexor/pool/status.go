package pool

import (
	"fmt"
	"strconv"
	"time"
)

// Texts of the built-in requests. Each function appends a whole reply.

// Scanned is how many scans were finished.
func (p *Pool) Scanned() int { return p.messages }

// AppendStatus appends the reply to status.
func (p *Pool) AppendStatus(b []byte, uptime time.Duration) []byte {
	for _, w := range p.workers {
		b = append(b, stateLetters[w.state])
	}
	return fmt.Appendf(b, " %d %d %d %d %d\n", p.messages, p.activations, p.limits.QueueSize, p.queue.len, uptime/time.Second)
}

// AppendWorkers appends a line for each worker, or for each busy one.
func (p *Pool) AppendWorkers(b []byte, onlyBusy bool) []byte {
	for _, w := range p.workers {
		if !onlyBusy || w.state == busy {
			b = w.appendLine(b)
		}
	}
	return b
}

func (w *worker) appendLine(b []byte) []byte {
	b = strconv.AppendInt(b, int64(w.n), 10)
	b = append(b, ' ', stateLetters[w.state])
	if w.state != stopped {
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(w.pid()), 10)
	}
	if w.state == busy && w.req != nil && w.req.Kind.counted() {
		b = append(b, ' ')
		b = append(b, kindNames[w.req.Kind]...)
	}
	if w.lastKind.counted() {
		b = append(b, " last="...)
		b = append(b, kindNames[w.lastKind]...)
	}
	b = append(b, " ago="...)
	b = strconv.AppendInt(b, int64((w.pool.timers.Now()-w.changed)/time.Second), 10)
	if tag := w.Tag(); tag != "" {
		b = append(b, " ("...)
		b = append(b, tag...)
		b = append(b, ')')
	}
	return append(b, '\n')
}

// AppendWorkerInfo appends all about worker n, if there is one: nine lines as the original has them and,
// where that is not asked for to the byte, what the process uses.
func (p *Pool) AppendWorkerInfo(b []byte, n int, usage bool) (info []byte, ok bool) {
	if n < 0 || n >= len(p.workers) {
		return b, false
	}
	return p.workers[n].appendInfo(b, usage), true
}

func (w *worker) appendInfo(b []byte, usage bool) []byte {
	p := w.pool
	b = fmt.Appendf(b, "Worker %d\nState %s\nPID %d\nNumRequests %d\nNumScans %d\nAge %d\nFirstReqAge %d\nLastStateChangeAge %d\nStatusTag %s\n",
		w.n, w.state, w.pid(), w.requests, w.scans, p.age(w), p.firstAge(w), (p.timers.Now()-w.changed)/time.Second, w.Tag())
	if !usage || w.child == nil {
		return b
	}
	if u, ok := w.child.Usage(); ok {
		b = fmt.Appendf(b, "ResidentKB %d\nCPUMilliseconds %d\n", u.Resident>>10, u.CPU.Milliseconds())
	}
	return b
}

// loadWindows and hourWindows are those of load and hload.
var (
	loadWindows = [4]int{10, 60, 300, 600}
	hourWindows = [4]int{1, 4, 12, 24}
)

// AppendLoad appends the numbers of load (KindScan) or load-KIND.
func (p *Pool) AppendLoad(b []byte, k Kind, uptime time.Duration) []byte {
	var t [4]tally
	var activations, reaped [4]int
	for i, window := range loadWindows {
		t[i], activations[i], reaped[i] = p.loads.last(p.timers.Now(), window, k)
		if k != KindScan {
			activations[i], reaped[i] = 0, 0
		}
	}
	b = appendTallies(b, t, 1)
	for _, numbers := range [][4]int{activations, reaped} {
		for _, n := range numbers {
			b = fmt.Appendf(b, "%d ", n)
		}
	}
	return fmt.Appendf(b, "%d %d %d %d %d %d %d %d %d\n", p.count[busy], p.count[idle], p.count[stopped], p.count[killed],
		p.messages, p.activations, p.limits.QueueSize, p.queue.len, uptime/time.Second)
}

func appendTallies(b []byte, t [4]tally, emptyBusy float64) []byte {
	for i := range t {
		b = fmt.Appendf(b, "%d ", t[i].count)
	}
	for i := range t {
		mean, _ := t[i].averages(emptyBusy)
		b = fmt.Appendf(b, "%f ", mean)
	}
	for i := range t {
		_, mean := t[i].averages(emptyBusy)
		b = fmt.Appendf(b, "%f ", mean)
	}
	return b
}

// AppendLoad1 appends the numbers of load1 for the last seconds.
func (p *Pool) AppendLoad1(b []byte, seconds int, uptime time.Duration) []byte {
	for k := range Kind(kinds) {
		t, _, _ := p.loads.last(p.timers.Now(), seconds, k)
		mean, ms := t.averages(0)
		b = fmt.Appendf(b, "%d %f %f ", t.count, mean, ms)
	}
	var running [kinds]int
	for _, w := range p.workers {
		if w.state == busy && w.req != nil && w.req.Kind.counted() {
			running[w.req.Kind]++
		}
	}
	return fmt.Appendf(b, "%d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", p.count[busy], p.count[idle], p.count[stopped], p.count[killed],
		p.messages, p.activations, p.limits.QueueSize, p.queue.len, uptime/time.Second, seconds,
		running[KindScan], running[KindRelayok], running[KindSenderok], running[KindRecipok])
}

// AppendHours appends the numbers of hload (KindScan) or hload-KIND.
func (p *Pool) AppendHours(b []byte, k Kind) []byte {
	var t [4]tally
	var spans [4]int64
	for i, window := range hourWindows {
		t[i], spans[i] = p.loads.lastHours(window, k)
	}
	b = appendTallies(b, t, 0)
	return fmt.Appendf(b, "%d %d %d %d\n", spans[0], spans[1], spans[2], spans[3])
}

// AppendHistogram appends the reply to histo.
func (p *Pool) AppendHistogram(b []byte) []byte {
	for i, n := range p.histogram {
		b = fmt.Appendf(b, "%4d %d\n", i+1, n)
	}
	return b
}
