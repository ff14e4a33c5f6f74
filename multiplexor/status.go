package main

import (
	"fmt"
	"strconv"
	"time"
)

// Texts of the built-in requests. Each function appends a whole reply.

func (p *pool) appendStatus(b []byte, uptime time.Duration) []byte {
	for _, w := range p.workers {
		b = append(b, stateLetters[w.state])
	}
	return fmt.Appendf(b, " %d %d %d %d %d\n", p.messages, p.activations, p.limits.QueueSize, p.queue.len, uptime/time.Second)
}

// appendWorkers appends a line for each worker, or for each busy one.
func (p *pool) appendWorkers(b []byte, onlyBusy bool) []byte {
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
	if w.state == busy && w.req != nil && w.req.kind.counted() {
		b = append(b, ' ')
		b = append(b, kindNames[w.req.kind]...)
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

// appendInfo appends all about a worker: nine lines as the original has them and,
// where that is not asked for to the byte, what the process uses.
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

// appendLoad appends the figures of load (kindScan) or load-KIND.
func (p *pool) appendLoad(b []byte, k kind, uptime time.Duration) []byte {
	var t [4]tally
	var activations, reaped [4]int
	for i, window := range loadWindows {
		t[i], activations[i], reaped[i] = p.history.last(p.timers.Now(), window, k)
		if k != kindScan {
			activations[i], reaped[i] = 0, 0
		}
	}
	b = appendTallies(b, t, 1)
	for _, figures := range [][4]int{activations, reaped} {
		for _, n := range figures {
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

// appendLoad1 appends the figures of load1 for the last seconds.
func (p *pool) appendLoad1(b []byte, seconds int, uptime time.Duration) []byte {
	for k := range kind(kinds) {
		t, _, _ := p.history.last(p.timers.Now(), seconds, k)
		mean, ms := t.averages(0)
		b = fmt.Appendf(b, "%d %f %f ", t.count, mean, ms)
	}
	var running [kinds]int
	for _, w := range p.workers {
		if w.state == busy && w.req != nil && w.req.kind.counted() {
			running[w.req.kind]++
		}
	}
	return fmt.Appendf(b, "%d %d %d %d %d %d %d %d %d %d %d %d %d %d\n", p.count[busy], p.count[idle], p.count[stopped], p.count[killed],
		p.messages, p.activations, p.limits.QueueSize, p.queue.len, uptime/time.Second, seconds,
		running[kindScan], running[kindRelayok], running[kindSenderok], running[kindRecipok])
}

// appendHours appends the figures of hload (kindScan) or hload-KIND.
func (p *pool) appendHours(b []byte, k kind) []byte {
	var t [4]tally
	var spans [4]int64
	for i, window := range hourWindows {
		t[i], spans[i] = p.history.lastHours(window, k)
	}
	b = appendTallies(b, t, 0)
	return fmt.Appendf(b, "%d %d %d %d\n", spans[0], spans[1], spans[2], spans[3])
}

func (p *pool) appendHistogram(b []byte) []byte {
	for i, n := range p.histogram {
		b = fmt.Appendf(b, "%4d %d\n", i+1, n)
	}
	return b
}
