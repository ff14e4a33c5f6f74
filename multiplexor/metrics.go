package main

import (
	"strconv"
	"time"

	"postern/internal/evloop"
	"postern/internal/metrics"
	"postern/multiplexor/pool"
)

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

// Ended implements [pool.Timings].
func (t *timings) Ended(kind string, took time.Duration) { t.requests.Observe(kind, took.Seconds()) }

// Waited implements [pool.Timings].
func (t *timings) Waited(d time.Duration) { t.waits.Observe(d.Seconds()) }

// metricsWait bounds how long a reader of the metrics waits for the loop.
const metricsWait = 5 * time.Second

// newMetrics makes the metrics of a multiplexor; they are read on the loop when
// somebody asks.
func newMetrics(process metrics.Process, l *evloop.Loop, p *pool.Pool, s *server, workers int) *metrics.Registry {
	r := metrics.New("multiplexor")
	process.LogDropped = s.log.lost // statistics count, too
	process.Reloads = nil           // the settings are not read again
	r.Process(process)
	var workerNames []string
	for i := range workers {
		workerNames = append(workerNames, strconv.Itoa(i))
	}
	requestKinds := pool.KindLabels()
	read := []metrics.Metric{
		{Name: "workers", Help: "Worker slots by state.", Label: "state", Values: pool.StateLabels()},
		{Name: "workers_max", Help: "Worker slots there are."},
		{Name: "workers_free", Help: "Workers that could take a request now."},
		{Name: "workers_working", Help: "Workers that have answered since they were started, be it a ping."},
		{Name: "workers_fault", Help: "Whether the workers that were started last have come to nothing."},
		{Name: "reread_failed", Help: "Whether the last reread of the filter rules was given up."},
		{Name: "queue_length", Help: "Requests that wait for a worker."},
		{Name: "queue_size", Help: "Requests that may wait for a worker."},
		{Name: "connections", Help: "Open connections on the request sockets."},
		{Name: "requests_total", Help: "Requests that workers answered.", Counter: true, Label: "kind", Values: requestKinds},
		{Name: "failures_total", Help: "Requests that got no answer of a worker.", Counter: true, Label: "reason", Values: pool.FailureLabels()},
		{Name: "activations_total", Help: "Worker processes started.", Counter: true},
		{Name: "deaths_total", Help: "Worker processes that ended without being told to.", Counter: true},
		{Name: "messages_total", Help: "Scans finished.", Counter: true},
		{Name: "directories_emptied_total", Help: "Directories emptied for a proxy of another account.", Counter: true},
		{Name: "worker_resident_bytes", Help: "Resident memory of a worker, shared pages included.", Label: "worker", Values: workerNames},
		{Name: "worker_cpu_seconds_total", Help: "Processor time of the process in a worker slot; it begins again with each process.", Counter: true, Label: "worker", Values: workerNames},
	}
	p.Timings = newTimings(r, requestKinds)
	r.Read(read, func(put func(name, label string, v float64)) {
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
			p.Metrics(add)
			add("connections", "", float64(s.connections()))
			add("directories_emptied_total", "", float64(s.emptied()))
			values <- all
		})
		select {
		case all := <-values:
			for _, v := range all {
				put(v.name, v.label, v.v)
			}
		case <-time.After(metricsWait):
		}
	})
	return r
}
