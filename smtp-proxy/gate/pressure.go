package gate

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/namedfile"
	"postern/internal/smtp"
)

// PressureLimit is a limit for one resource: the share of the last ten seconds, in percent, in which
// some task waited for it (avg10 of the kernel's pressure stall information).
type PressureLimit struct {
	resource string // cpu, memory or io
	percent  float64
}

// ParsePressureLimits reads "cpu=80 io=50".
func ParsePressureLimits(text string) ([]PressureLimit, error) {
	var limits []PressureLimit
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		percent, err := strconv.ParseFloat(value, 64)
		if name != "cpu" && name != "memory" && name != "io" {
			return nil, fmt.Errorf("%q is not cpu, memory or io", name)
		}
		if err != nil || math.IsNaN(percent) || percent <= 0 || percent > 100 {
			return nil, fmt.Errorf("%q is not a percentage", value)
		}
		limits = append(limits, PressureLimit{name, percent})
	}
	return limits, nil
}

// parsePressure finds avg10 in the line "some avg10=1.23 avg60=...".
func parsePressure(data string) (float64, error) {
	for line := range strings.Lines(data) {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		word, _, _ := strings.Cut(rest, " ")
		v, err := strconv.ParseFloat(word, 64)
		if err != nil || math.IsNaN(v) {
			return 0, fmt.Errorf("%.20q is not a pressure", word)
		}
		return v, nil
	}
	return 0, fmt.Errorf("no line some avg10=")
}

// Pressure is shut while any limit is reached. Like the load gate it fails open.
type Pressure struct {
	limits []PressureLimit
	dir    string
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	read   time.Time
	shut   bool
	failed bool
}

// set changes what is compared with what.
func (g *Pressure) set(limits []PressureLimit, dir string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits, g.dir, g.read = limits, dir, time.Time{}
}

// Name returns the gate's name.
func (g *Pressure) Name() string { return NamePressure }

// Check refuses everybody while a limit is reached.
func (g *Pressure) Check(context.Context, Client) *smtp.Reply {
	if g.closed() {
		return shut(421, "4.3.2", "System is too busy, try again later")
	}
	return nil
}

// closed reports whether the gate is shut.
func (g *Pressure) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.limits) == 0 {
		return false
	}
	now := g.now()
	if !g.read.IsZero() && now.Sub(g.read) < readingAge {
		return g.shut
	}
	g.read = now
	shut, failed := false, false
	for _, limit := range g.limits {
		value, err := g.value(limit.resource)
		if err != nil && !g.failed {
			g.log.Warn("pressure cannot be read, letting everybody in", "error", err)
		}
		failed = failed || err != nil
		shut = shut || err == nil && value >= limit.percent
	}
	if shut != g.shut {
		g.log.Warn("pressure gate", "shut", shut)
	}
	g.shut, g.failed = shut, failed
	return shut
}

func (g *Pressure) value(resource string) (float64, error) {
	file := filepath.Join(g.dir, resource)
	data, err := namedfile.Head(file, 512)
	if err != nil {
		return 0, fmt.Errorf("read pressure: %w", err)
	}
	v, err := parsePressure(string(data))
	if err != nil {
		return 0, fmt.Errorf("read pressure from %q: %w", file, err)
	}
	return v, nil
}
