package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// How often the state of a run is shown: on a terminal in one line that is
// always the last, elsewhere in lines of their own.
const (
	onTerminal = time.Second
	elsewhere  = 30 * time.Second
)

// screen is where a run is shown. On a terminal its last line is the status,
// which gives way to whatever is written.
type screen struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	shown    bool      // the status stands there
	told     time.Time // when it was last shown elsewhere
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{w: f, told: time.Now(), terminal: err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"}
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown {
		s.shown = false
		io.WriteString(s.w, "\r\x1b[K")
	}
	return s.w.Write(p)
}

// status shows a line of state. It may have any length.
func (s *screen) status(line string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.terminal:
		const width = 79 // of the narrowest terminal
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width-3]) + "..."
		}
		io.WriteString(s.w, "\r\x1b[K"+line)
		s.shown = true
	case now.Sub(s.told) >= elsewhere:
		s.told = now
		io.WriteString(s.w, "test: "+line+"\n")
	}
}

// clear takes the status away.
func (s *screen) clear() { s.Write(nil) }

// status tells how far the run is and what is running, the longest first.
func (r *report) status(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", r.done())
	if r.total > 0 {
		fmt.Fprintf(&b, " of %d", r.total)
	}
	fmt.Fprintf(&b, " packages, %d tests done", len(r.ended))
	if r.failed > 0 {
		fmt.Fprintf(&b, ", %d FAILED", r.failed)
	}
	type since struct {
		what string
		when time.Time
	}
	var all []since
	for _, p := range r.packages {
		running := p.running()
		for _, t := range running {
			all = append(all, since{p.name + " " + t.name, t.began})
		}
		if len(running) == 0 {
			all = append(all, since{p.name, p.began})
		}
	}
	slices.SortFunc(all, func(a, b since) int {
		if c := a.when.Compare(b.when); c != 0 {
			return c
		}
		return strings.Compare(a.what, b.what)
	})
	for i, s := range all {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(all)-i)
			break
		}
		b.WriteString([]string{"; running: ", ", ", ", "}[i])
		fmt.Fprintf(&b, "%s (%.0f s)", s.what, max(0, now.Sub(s.when).Seconds()))
	}
	return b.String()
}
