package main

import (
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/namedfile"
)

// pressureLimit is a limit for one resource: the share of the last ten seconds, in percent, in which
// some task waited for it (avg10 of the kernel's pressure stall information).
type pressureLimit struct {
	resource string // cpu, memory or io
	percent  float64
}

// parsePressureLimits reads "cpu=80 io=50".
func parsePressureLimits(text string) ([]pressureLimit, error) {
	var limits []pressureLimit
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		percent, err := strconv.ParseFloat(value, 64)
		if name != "cpu" && name != "memory" && name != "io" {
			return nil, fmt.Errorf("%q is not cpu, memory or io", name)
		}
		if err != nil || math.IsNaN(percent) || percent <= 0 || percent > 100 {
			return nil, fmt.Errorf("%q is not a percentage", value)
		}
		limits = append(limits, pressureLimit{name, percent})
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

// pressureGate is shut while any limit is reached. Like the load gate it fails open.
type pressureGate struct {
	limits []pressureLimit
	dir    string
	log    *slog.Logger
	now    func() time.Time

	mu     sync.Mutex
	read   time.Time
	shut   bool
	failed bool
}

// set changes what is compared with what.
func (g *pressureGate) set(limits []pressureLimit, dir string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits, g.dir, g.read = limits, dir, time.Time{}
}

// closed says whether the gate is shut.
func (g *pressureGate) closed() bool {
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

func (g *pressureGate) value(resource string) (float64, error) {
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
