package pool

import (
	"strconv"
	"strings"
	"time"
)

// counters are what has happened since the start. They only grow.
type counters struct {
	answered [kinds + 1]uint64 // by kind, the last for all others
	failed   [Failures]uint64
	died     uint64 // workers that ended by themselves
}

// tell ends a request without an answer.
func (p *Pool) tell(r *Request, why Failure) {
	if r.origin != fromPool {
		p.counters.failed[why]++
	}
	r.asker.Failed(why)
}

func (c *counters) answer(k Kind) { c.answered[min(int(k), kinds)]++ }

// waited notes how long a request has been in the queue.
func (p *Pool) waited(d time.Duration) {
	if p.Timings != nil {
		p.Timings.Waited(d)
	}
}

// FailureLabels returns how metrics name failures, in their order.
func FailureLabels() []string { return failureNames[:] }

// StateLabels returns how metrics name the states of workers.
func StateLabels() []string { return lowerStates[:] }

var failureNames = [Failures]string{
	FailNoFree: "no_free_worker", FailStart: "not_started", FailQueue: "queue_timeout", FailTalk: "talk", FailDied: "died",
	FailTimeout: "busy_timeout", FailOverloaded: "busy_timeout", FailDomain: "domain_limit", FailAnswer: "protocol", FailPoison: "poison", FailShutdown: "shutdown",
}

// otherKind is the label of requests without a kind.
const otherKind = "command"

// Label is how metrics name a kind.
func (k Kind) Label() string {
	if k.counted() {
		return kindNames[k]
	}
	return otherKind
}

// KindLabels are all labels of kinds.
func KindLabels() (all []string) {
	for k := range Kind(kinds) {
		all = append(all, k.Label())
	}
	return append(all, otherKind)
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Metrics returns the values of the metrics that are the pool's, by name and label.
func (p *Pool) Metrics(put func(name, label string, v float64)) {
	for s, n := range p.count {
		put("workers", lowerStates[s], float64(n))
	}
	put("workers_max", "", float64(len(p.workers)))
	put("workers_free", "", float64(p.Free()))
	put("workers_working", "", float64(p.working))
	put("workers_fault", "", oneIf(p.fault.text != ""))
	put("reread_failed", "", oneIf(strings.HasPrefix(p.reload.outcome, rereadFailed)))
	put("queue_length", "", float64(p.queue.len))
	put("queue_size", "", float64(p.limits.QueueSize))
	for i, n := range p.counters.answered {
		put("requests_total", Kind(i).Label(), float64(n))
	}
	for why, n := range p.counters.failed {
		put("failures_total", failureNames[why], float64(n))
	}
	put("activations_total", "", float64(p.activations))
	put("deaths_total", "", float64(p.counters.died))
	put("messages_total", "", float64(p.messages))
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
