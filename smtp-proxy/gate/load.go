package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/smtp"
)

// LoadLimits are limits for the load averages of 1, 5 and 15 minutes; 0 is none.
type LoadLimits [3]float64

// ParseLoadLimits reads up to three limits; missing ones are 0, which means off.
func ParseLoadLimits(text string) (limits LoadLimits, err error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return limits, errors.New("empty; 0 switches it off")
	}
	if len(words) > len(limits) {
		return limits, errors.New("more than three limits")
	}
	for i, word := range words {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return limits, fmt.Errorf("%q is not a limit", word)
		}
		limits[i] = v
	}
	return limits, nil
}

// parseLoad reads the first three fields of /proc/loadavg.
func parseLoad(data []byte) (values [3]float64, err error) {
	words := bytes.Fields(data)
	if len(words) < len(values) {
		return values, errors.New("fewer than three numbers")
	}
	for i := range values {
		v, err := strconv.ParseFloat(string(words[i]), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return values, fmt.Errorf("%.20q is not a load average", words[i])
		}
		values[i] = v
	}
	return values, nil
}

// overloaded reports whether all limits that are on are reached. A value below its limit lets the
// session in, whatever the others are.
func overloaded(values [3]float64, limits LoadLimits) bool {
	enabled := false
	for i, limit := range limits {
		if limit == 0 {
			continue
		}
		enabled = true
		if values[i] < limit {
			return false
		}
	}
	return enabled
}

// Load compares the load averages with maxloadavg. A file that cannot be read or understood lets
// everybody in: the gate is there to keep mail flowing, not to stop it.
type Load struct {
	limits LoadLimits
	file   string
	log    *slog.Logger
	now    func() time.Time
	change func(shut bool) // called once per change of the gate
	fault  func()          // called once per reading that failed

	mu     sync.Mutex
	read   time.Time
	shut   bool
	failed bool
}

// set changes what is compared with what.
func (g *Load) set(limits LoadLimits, file string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits, g.file, g.read = limits, file, time.Time{}
}

// Name returns the gate's name.
func (g *Load) Name() string { return NameLoad }

// Check refuses everybody while the load is too high.
func (g *Load) Check(context.Context, Client) *smtp.Reply {
	if g.Look() {
		return shut(421, "4.3.2", "System load is too high, try again later")
	}
	return nil
}

// Look reports whether the gate is shut, and tells of a change.
func (g *Load) Look() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits == (LoadLimits{}) && !g.shut {
		return false
	}
	now := g.now()
	if !g.read.IsZero() && now.Sub(g.read) < readingAge {
		return g.shut
	}
	g.read = now
	values, err := readLoad(g.file)
	shut := err == nil && overloaded(values, g.limits)
	g.note(err)
	if shut != g.shut {
		g.shut = shut
		g.log.Warn("load gate", "shut", shut, "load", fmt.Sprint(values), "limits", fmt.Sprint(g.limits))
		g.change(shut)
	}
	return g.shut
}

// note logs the first failure and the first success after one.
func (g *Load) note(err error) {
	if err != nil {
		g.fault()
	}
	if failed := err != nil; failed != g.failed {
		g.failed = failed
		if failed {
			g.log.Warn("load averages cannot be read, letting everybody in", "error", err)
		} else {
			g.log.Info("load averages can be read again")
		}
	}
}

func readLoad(file string) ([3]float64, error) {
	data, err := loadavg(file)
	if err != nil {
		return [3]float64{}, fmt.Errorf("read load averages: %w", err)
	}
	values, err := parseLoad(data)
	if err != nil {
		return [3]float64{}, fmt.Errorf("read load averages from %q: %w", file, err)
	}
	return values, nil
}
