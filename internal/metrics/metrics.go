// Package metrics is the door to the Prometheus client library: metrics with
// fixed sets of label values, metrics that are read from the program when somebody
// asks, and the listener where that is done.
//
// A label never has a value that a client chooses: one that was not named when the
// metric was made counts as Other.
package metrics

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"postern/internal/version"
)

// Other is the label value of everything that was not named.
const Other = "other"

// namespace begins all names.
const namespace = "postern"

// Registry holds the metrics of one program.
type Registry struct {
	registry  *prometheus.Registry
	subsystem string
	state     func() string // nil: it is ready
}

// New makes a registry. The names of its metrics begin with postern_PROGRAM_,
// where program is made of letters, digits and underscores. The metrics of the Go
// runtime and the process, and postern_build_info, are there from the start.
//
// The functions that make metrics panic if a name is not valid or taken: names
// are written in the program, not read.
func New(program string) *Registry {
	r := &Registry{registry: prometheus.NewRegistry(), subsystem: program}
	r.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: prometheus.BuildFQName(namespace, "", "build_info"), Help: "Which program this is, and of which version; the value is 1.",
		ConstLabels: prometheus.Labels{"program": strings.ReplaceAll(program, "_", "-"), "version": version.Number(), "goversion": runtime.Version()},
	})
	build.Set(1)
	r.registry.MustRegister(build)
	return r
}

func (r *Registry) fullName(name string) string {
	return prometheus.BuildFQName(namespace, r.subsystem, name)
}

// Counter only grows.
type Counter struct{ c prometheus.Counter }

// Counter makes a counter. By custom its name ends in _total.
func (r *Registry) Counter(name, help string) *Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: r.fullName(name), Help: help})
	r.registry.MustRegister(c)
	return &Counter{c}
}

// Inc adds one.
func (c *Counter) Inc() { c.c.Inc() }

// Add adds n.
func (c *Counter) Add(n uint64) { c.c.Add(float64(n)) }

// Counters are one counter for each value of a label.
type Counters struct{ set[prometheus.Counter] }

// Counters makes a counter for each value; all show from the start, as 0.
func (r *Registry) Counters(name, help, label string, values ...string) *Counters {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: r.fullName(name), Help: help}, []string{label})
	r.registry.MustRegister(vec)
	return &Counters{newSet(values, func(v string) prometheus.Counter { return vec.WithLabelValues(v) })}
}

// Inc adds one to the counter of the value.
func (c *Counters) Inc(value string) { c.of(value).Inc() }

// Add adds n to the counter of the value.
func (c *Counters) Add(value string, n uint64) { c.of(value).Add(float64(n)) }

// Gauge goes up and down.
type Gauge struct{ g prometheus.Gauge }

// Gauge makes a gauge.
func (r *Registry) Gauge(name, help string) *Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: r.fullName(name), Help: help})
	r.registry.MustRegister(g)
	return &Gauge{g}
}

// Set sets the value.
func (g *Gauge) Set(v float64) { g.g.Set(v) }

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64) { g.g.Add(v) }

// Histogram counts observations in buckets.
type Histogram struct{ h prometheus.Histogram }

// Histogram makes a histogram with the given upper bounds, ascending.
func (r *Registry) Histogram(name, help string, bounds ...float64) *Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: r.fullName(name), Help: help, Buckets: bounds})
	r.registry.MustRegister(h)
	return &Histogram{h}
}

// Observe counts a value.
func (h *Histogram) Observe(v float64) { h.h.Observe(v) }

// Histograms are one histogram for each value of a label.
type Histograms struct{ set[prometheus.Observer] }

// Histograms makes a histogram for each value, all with the given upper bounds.
func (r *Registry) Histograms(name, help, label string, values []string, bounds ...float64) *Histograms {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: r.fullName(name), Help: help, Buckets: bounds}, []string{label})
	r.registry.MustRegister(vec)
	return &Histograms{newSet(values, func(v string) prometheus.Observer { return vec.WithLabelValues(v) })}
}

// Observe counts v in the histogram of the value.
func (h *Histograms) Observe(value string, v float64) { h.of(value).Observe(v) }

// Since counts the seconds since start in the histogram of the value.
func (h *Histograms) Since(value string, start time.Time) {
	h.of(value).Observe(time.Since(start).Seconds())
}

// set has a metric for each known label value, looked up without a lock. Other's
// is made from the start too: metrics that come later confuse rates.
type set[T any] struct {
	metrics map[string]T
}

func newSet[T any](values []string, make_ func(string) T) set[T] {
	s := set[T]{metrics: make(map[string]T, len(values)+1)}
	for _, v := range append(slices.Clone(values), Other) {
		s.metrics[v] = make_(v)
	}
	return s
}

func (s *set[T]) of(value string) T {
	if f, ok := s.metrics[value]; ok {
		return f
	}
	return s.metrics[Other]
}

// Metric describes a metric that is read when somebody asks for it.
type Metric struct {
	Name, Help string
	Counter    bool     // else a gauge
	Label      string   // "" for a metric without labels
	Values     []string // of the label
}

// Read adds metrics whose values read puts, when somebody asks: state that the
// program has anyway, all of one moment. put takes a label value that is not in the
// metric's Values as Other, adds up what comes twice, and panics for a name that
// no metric has. read may be called by several goroutines at once.
func (r *Registry) Read(metrics []Metric, read func(put func(name, label string, v float64))) {
	c := &reader{read: read}
	for _, f := range metrics {
		var labels []string
		if f.Label != "" {
			labels = []string{f.Label}
		}
		c.metrics = append(c.metrics, readMetric{f, prometheus.NewDesc(r.fullName(f.Name), f.Help, labels, nil)})
	}
	r.registry.MustRegister(c)
}

// reader is a prometheus.Collector.
type reader struct {
	metrics []readMetric
	read    func(put func(name, label string, v float64))
}

type readMetric struct {
	Metric
	desc *prometheus.Desc
}

// Describe lists the metrics.
func (c *reader) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.metrics {
		ch <- f.desc
	}
}

// Collect reads the values.
func (c *reader) Collect(ch chan<- prometheus.Metric) {
	values := make([]map[string]float64, len(c.metrics))
	c.read(func(name, label string, v float64) {
		i := slices.IndexFunc(c.metrics, func(f readMetric) bool { return f.Name == name })
		if i < 0 {
			panic(fmt.Sprintf("metrics: no metric %q", name))
		}
		f := c.metrics[i]
		switch {
		case f.Label == "":
			label = ""
		case !slices.Contains(f.Values, label):
			label = Other
		}
		if values[i] == nil {
			values[i] = make(map[string]float64)
		}
		values[i][label] += v
	})
	for i, f := range c.metrics {
		kind := prometheus.GaugeValue
		if f.Counter {
			kind = prometheus.CounterValue
		}
		for label, v := range values[i] {
			var labels []string
			if f.Label != "" {
				labels = []string{label}
			}
			ch <- prometheus.MustNewConstMetric(f.desc, kind, v, labels...)
		}
	}
}
