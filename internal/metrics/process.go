package metrics

import (
	"io"
	"net/http"
	"time"
)

// Ready is the state of a daemon that takes clients.
const Ready = "ready"

// Process is what every daemon can say of itself. What is nil is left out.
type Process struct {
	State      func() string // Ready, or in a word why it is not: what HealthPath says
	LogDropped func() uint64
	Reloads    func() Reloads
	Expires    func() time.Time // when the first of the certificates ends; the zero time without one
}

// Reloads counts what became of reloads.
type Reloads struct {
	Done, Failed uint64
	LastFailed   bool
}

// Process adds the metrics of the process, and has its state answered under HealthPath.
func (r *Registry) Process(p Process) {
	r.state = p.State
	if p.LogDropped != nil {
		r.Read([]Metric{{Name: "log_lines_dropped_total", Help: "Lines of the log dropped because it was too slow or could not be written.", Counter: true}},
			func(put func(name, label string, v float64)) {
				put("log_lines_dropped_total", "", float64(p.LogDropped()))
			})
	}
	if p.Reloads != nil {
		r.Read([]Metric{
			{Name: "reloads_total", Help: "Reloads of the settings, by what became of them.", Counter: true, Label: "outcome", Values: []string{"done", "failed"}},
			{Name: "reload_failed", Help: "Whether the last reload of the settings has failed."},
		}, func(put func(name, label string, v float64)) {
			c := p.Reloads()
			put("reloads_total", "done", float64(c.Done))
			put("reloads_total", "failed", float64(c.Failed))
			put("reload_failed", "", truth(c.LastFailed))
		})
	}
	if p.Expires != nil {
		r.Read([]Metric{{Name: "certificate_expiry_seconds", Help: "When the first of our certificates ends, in seconds since 1970; not there without a certificate."}},
			func(put func(name, label string, v float64)) {
				if at := p.Expires(); !at.IsZero() {
					put("certificate_expiry_seconds", "", float64(at.Unix()))
				}
			})
	}
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// health answers a load balancer.
func (r *Registry) health(w http.ResponseWriter, _ *http.Request) {
	state := Ready
	if r.state != nil {
		state = r.state()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if state != Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, state+"\n")
}
