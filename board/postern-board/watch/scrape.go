package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"postern/internal/printable"
)

// Bounds of a reading of metrics.
const (
	maxMetrics  = 4 << 20 // bytes
	maxFigures  = 4000    // of ours; more are left out
	ownPrefix   = "postern_"
	metricsPath = "/metrics"
)

// A Figure is one value of a daemon's metrics.
type Figure struct {
	Name    string // without postern_ and, most often, the program
	Labels  string // as in gate="load"
	Help    string
	Value   float64
	Counter bool
	Rate    float64 // of a counter, a second, over the last minute
}

// scrape is one reading of the metrics.
type scrape struct {
	at      time.Time
	figures []Figure
	index   map[string]float64 // by name and labels
}

func (s *scrape) add(f Figure) {
	if len(s.figures) >= maxFigures {
		return
	}
	s.figures = append(s.figures, f)
	s.index[f.Name+"{"+f.Labels+"}"] = f.Value
}

// value is that of a figure; ok is false if there is none.
func (s *scrape) value(name, labels string) (v float64, ok bool) {
	if s == nil {
		return 0, false
	}
	v, ok = s.index[name+"{"+labels+"}"]
	return v, ok
}

// clean is a short text that is safe to show.
func clean(s string) string { return printable.Text(short(s, maxText)) }

// reader reads the metrics of one daemon.
type reader struct {
	client http.Client
	prefix string
}

func newReader(t *Target, patience time.Duration) *reader {
	transport := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Metrics.Dial(ctx) },
		MaxIdleConns:        1,
		DisableCompression:  true, // what is small could become large
		MaxConnsPerHost:     1,
		IdleConnTimeout:     time.Minute,
		MaxIdleConnsPerHost: 1,
	}
	refuse := func(*http.Request, []*http.Request) error { return errors.New("redirected") }
	return &reader{
		client: http.Client{Transport: transport, Timeout: patience, CheckRedirect: refuse},
		prefix: ownPrefix + strings.ReplaceAll(t.Kind, "-", "_") + "_",
	}
}

// read reads the metrics once.
func (r *reader) read(ctx context.Context) (*scrape, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+metricsPath, nil)
	if err != nil {
		return nil, err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered with status %d", response.StatusCode)
	}
	body := &io.LimitedReader{R: response.Body, N: maxMetrics}
	s, err := r.parse(body)
	if err == nil && body.N <= 0 {
		err = fmt.Errorf("more than %d bytes", maxMetrics)
	}
	return s, err
}

// parse reads the text format of Prometheus. Only our own figures are kept.
func (r *reader) parse(text io.Reader) (*scrape, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bufio.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s := &scrape{index: map[string]float64{}}
	names := make([]string, 0, len(families))
	for name := range families {
		if strings.HasPrefix(name, ownPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		name, family := strings.TrimPrefix(name, r.prefix), families[name]
		for _, m := range family.GetMetric() {
			var labels []string
			for _, pair := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
			}
			f := Figure{Name: clean(name), Labels: clean(strings.Join(labels, ",")), Help: clean(family.GetHelp())}
			switch {
			case m.GetCounter() != nil:
				f.Value, f.Counter = m.GetCounter().GetValue(), true
			case m.GetGauge() != nil:
				f.Value = m.GetGauge().GetValue()
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				sum := f
				sum.Name, sum.Value, sum.Counter = f.Name+"_sum", h.GetSampleSum(), true
				s.add(sum)
				f.Name, f.Value, f.Counter = f.Name+"_count", float64(h.GetSampleCount()), true
			default:
				f.Value = m.GetUntyped().GetValue()
			}
			s.add(f)
		}
	}
	return s, nil
}
