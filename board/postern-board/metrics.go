package main

import (
	"sync/atomic"

	"postern/internal/metrics"
)

// meters are the figures of the board itself.
type meters struct {
	registry *metrics.Registry
	requests *metrics.Counters
	viewers  atomic.Int64 // pages that are open
	slow     *metrics.Counter
}

func newMeters(srv *server) *meters {
	r := metrics.New("board")
	m := &meters{
		registry: r,
		requests: r.Counters("requests_total", "Requests of browsers.", "outcome", "answered", "wrong-host", "wrong-method", "wrong-password", "busy"),
		slow:     r.Counter("cut_viewers_total", "Pages that were cut off because their browser did not read."),
	}
	r.Read([]metrics.Metric{
		{Name: "viewers", Help: "Pages that are open, and kept up to date."},
		{Name: "daemons", Help: "Daemons that are watched.", Label: "state", Values: []string{"reachable", "unreachable"}},
		{Name: "events_total", Help: "Events taken from all daemons.", Counter: true},
	}, func(put func(name, label string, v float64)) {
		put("viewers", "", float64(m.viewers.Load()))
		reachable, all := srv.board.Reachable()
		put("daemons", "reachable", float64(reachable))
		put("daemons", "unreachable", float64(all-reachable))
		put("events_total", "", float64(srv.board.Took()))
	})
	return m
}
