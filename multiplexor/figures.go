package main

import (
	"strconv"
	"strings"
	"time"

	"postern/internal/evloop"
	"postern/internal/metrics"
)

// counters are what has happened since the start, for metrics. All counters only grow.
type counters struct {
	answered [kinds + 1]uint64 // by kind, the last for all others
	failed   [failures]uint64
	died     uint64 // workers that ended by themselves
}

// tell ends a request without an answer.
func (p *pool) tell(r *request, why failure) {
	if r.origin != fromPool {
		p.counters.failed[why]++
	}
	r.asker.failed(why)
}

func (c *counters) answer(k kind) { c.answered[min(int(k), kinds)]++ }

// timings are histograms, which are kept only if somebody can read them.
type timings struct {
	requests *metrics.Histograms
	waits    *metrics.Histogram
}

// The upper bounds of the buckets, in seconds: a filter takes milliseconds for an
// address and seconds for a large message; the queue's longest time is ten minutes.
var (
	requestBounds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
	waitBounds    = []float64{.001, .01, .1, .5, 1, 2.5, 5, 10, 30, 60, 120, 600}
)

func newTimings(r *metrics.Registry, kinds []string) *timings {
	return &timings{
		requests: r.Histograms("request_seconds", "Time from handing a request to a worker to its end, also if that is an error.", "kind", kinds, requestBounds...),
		waits:    r.Histogram("queue_wait_seconds", "Time in the queue of requests that had to wait there, also if they were refused in the end.", waitBounds...),
	}
}

func (t *timings) ended(k kind, took time.Duration) {
	if t != nil {
		t.requests.Observe(kindLabel(min(int(k), kinds)), took.Seconds())
	}
}

func (t *timings) waited(d time.Duration) {
	if t != nil {
		t.waits.Observe(d.Seconds())
	}
}

// failureNames are label values.
var failureNames = [failures]string{
	failNoFree: "no_free_worker", failStart: "not_started", failQueue: "queue_timeout", failTalk: "talk", failDied: "died",
	failTimeout: "busy_timeout", failOverloaded: "busy_timeout", failDomain: "domain_limit", failAnswer: "protocol", failPoison: "poison", failShutdown: "shutdown",
}

// otherKind is the label of requests without a kind.
const otherKind = "command"

func kindLabel(i int) string {
	if i < kinds {
		return kindNames[i]
	}
	return otherKind
}

// figureWait bounds how long a reader of the figures waits for the loop.
const figureWait = 5 * time.Second

// newFigures makes the figures of a multiplexor; they are read on the loop when
// somebody asks.
func newFigures(l *evloop.Loop, p *pool, s *server) *metrics.Registry {
	r := metrics.New("multiplexor")
	var workerNames, kindLabels []string
	for i := range p.workers {
		workerNames = append(workerNames, strconv.Itoa(i))
	}
	for i := range kinds + 1 {
		kindLabels = append(kindLabels, kindLabel(i))
	}
	figures := []metrics.Figure{
		{Name: "workers", Help: "Worker slots by state.", Label: "state", Values: lowerStates[:]},
		{Name: "workers_max", Help: "Worker slots there are."},
		{Name: "workers_free", Help: "Workers that could take a request now."},
		{Name: "workers_working", Help: "Workers that have answered since they were started, be it a ping."},
		{Name: "workers_fault", Help: "Whether the workers that were started last have come to nothing."},
		{Name: "reread_failed", Help: "Whether the last reread of the filter rules was given up."},
		{Name: "queue_length", Help: "Requests that wait for a worker."},
		{Name: "queue_size", Help: "Requests that may wait for a worker."},
		{Name: "connections", Help: "Open connections on the request sockets."},
		{Name: "requests_total", Help: "Requests that workers answered.", Counter: true, Label: "kind", Values: kindLabels},
		{Name: "failures_total", Help: "Requests that got no answer of a worker.", Counter: true, Label: "reason", Values: failureNames[:]},
		{Name: "activations_total", Help: "Worker processes started.", Counter: true},
		{Name: "deaths_total", Help: "Worker processes that ended without being told to.", Counter: true},
		{Name: "messages_total", Help: "Scans finished.", Counter: true},
		{Name: "directories_emptied_total", Help: "Directories emptied for a proxy of another account.", Counter: true},
		{Name: "log_lines_dropped_total", Help: "Log and statistics lines dropped because the log or the disk was too slow.", Counter: true},
		{Name: "worker_resident_bytes", Help: "Resident memory of a worker, shared pages included.", Label: "worker", Values: workerNames},
		{Name: "worker_cpu_seconds_total", Help: "Processor time of the process in a worker slot; it begins again with each process.", Counter: true, Label: "worker", Values: workerNames},
	}
	p.timings = newTimings(r, kindLabels)
	r.Read(figures, func(put func(name, label string, v float64)) {
		// The values come over a channel: a reader that has given up is not to be
		// written to.
		type value struct {
			name, label string
			v           float64
		}
		values := make(chan []value, 1)
		l.Post(func() {
			var all []value
			add := func(name, label string, v float64) { all = append(all, value{name, label, v}) }
			p.putFigures(add)
			add("connections", "", float64(s.connections()))
			add("directories_emptied_total", "", float64(s.emptied()))
			values <- all
		})
		select {
		case all := <-values:
			for _, v := range all {
				put(v.name, v.label, v.v)
			}
		case <-time.After(figureWait):
		}
	})
	return r
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (p *pool) putFigures(put func(name, label string, v float64)) {
	for s, n := range p.count {
		put("workers", lowerStates[s], float64(n))
	}
	put("workers_max", "", float64(len(p.workers)))
	put("workers_free", "", float64(p.freeSlots()))
	put("workers_working", "", float64(p.working))
	put("workers_fault", "", oneIf(p.fault.text != ""))
	put("reread_failed", "", oneIf(strings.HasPrefix(p.reload.outcome, rereadFailed)))
	put("queue_length", "", float64(p.queue.len))
	put("queue_size", "", float64(p.limits.QueueSize))
	for i, n := range p.counters.answered {
		put("requests_total", kindLabel(i), float64(n))
	}
	for why, n := range p.counters.failed {
		put("failures_total", failureNames[why], float64(n))
	}
	put("activations_total", "", float64(p.activations))
	put("deaths_total", "", float64(p.counters.died))
	put("messages_total", "", float64(p.messages))
	put("log_lines_dropped_total", "", float64(p.log.lost()))
	for _, w := range p.workers {
		if w.child == nil {
			continue
		}
		if u, ok := w.child.Usage(); ok {
			put("worker_resident_bytes", strconv.Itoa(w.n), float64(u.Resident))
			put("worker_cpu_seconds_total", strconv.Itoa(w.n), u.CPU.Seconds())
		}
	}
}
