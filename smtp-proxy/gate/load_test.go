package gate

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestParseLoadLimits(t *testing.T) {
	for _, tt := range []struct {
		text string
		want LoadLimits
		ok   bool
	}{
		{"10 0 0", LoadLimits{10, 0, 0}, true},
		{"10", LoadLimits{10, 0, 0}, true},
		{"10 0", LoadLimits{10, 0, 0}, true},
		{"0", LoadLimits{}, true},
		{"2.5 0 7", LoadLimits{2.5, 0, 7}, true},
		{"", LoadLimits{}, false},
		{"   ", LoadLimits{}, false},
		{"1 2 3 4", LoadLimits{}, false},
		{"-1", LoadLimits{}, false},
		{"x", LoadLimits{}, false},
		{"NaN", LoadLimits{}, false},
		{"Inf", LoadLimits{}, false},
		{"1e999", LoadLimits{}, false},
	} {
		got, err := ParseLoadLimits(tt.text)
		if (err == nil) != tt.ok || err == nil && got != tt.want {
			t.Errorf("ParseLoadLimits(%q) = %v, %v; want %v, ok %v", tt.text, got, err, tt.want, tt.ok)
		}
	}
}

// loadFor gives a gate over a file of that content, and how often it changed and failed.
func loadFor(t *testing.T, limits, content string) (g *Load, changes, faults *int, now *time.Time) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "loadavg")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := ParseLoadLimits(limits)
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Unix(1700000000, 0)
	changes, faults, now = new(int), new(int), &clock
	return &Load{
		limits: l, file: file, log: slog.New(slog.DiscardHandler), now: func() time.Time { return *now },
		change: func(bool) { *changes++ }, fault: func() { *faults++ },
	}, changes, faults, now
}

func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name, limits, file string
		shut               bool
	}{
		{"off", "0", "99 99 99 1/1 1", false},
		{"below", "10 0 0", "9.99 50 50 1/1 1", false},
		{"equal counts as reached", "10 0 0", "10 0 0 1/1 1", true},
		{"above", "10 0 0", "11 0 0 1/1 1", true},
		{"one of two below", "10 5 0", "12 4 9 1/1 1", false},
		{"both reached", "10 5 0", "12 6 0.1 1/1 1", true},
		{"disabled position does not let in", "10 0 2", "12 0.1 3 1/1 1", true},
		{"fractional limit", "2.5", "2.4 0 0 1/1 1", false},
		{"empty file", "1", "", false},
		{"garbage", "1", "x y z", false},
		{"not numbers", "1", "NaN inf 1e309", false},
		{"one number", "1", "99", false},
		{"long file", "1", "9 9 9 " + strings.Repeat("x", 1<<20), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, _, _, _ := loadFor(t, tt.limits, tt.file)
			if got := g.Look(); got != tt.shut {
				t.Errorf("limits %q, load %.40q: shut %v, want %v", tt.limits, tt.file, got, tt.shut)
			}
		})
	}
}

func TestLoadCachesAndTellsChanges(t *testing.T) {
	g, changes, faults, now := loadFor(t, "1", "5 5 5")
	if !g.Look() || *changes != 1 {
		t.Fatalf("gate is open at load 5, or told %d changes, want 1", *changes)
	}
	if err := os.WriteFile(g.file, []byte("0 0 0"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !g.Look() {
		t.Error("file was read again within a second")
	}
	*now = now.Add(time.Second)
	if g.Look() || *changes != 2 {
		t.Errorf("gate is shut at load 0, or told %d changes, want 2", *changes)
	}
	if err := os.Remove(g.file); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Second)
	if g.Look() || *faults != 1 {
		t.Errorf("gate is shut without a file, or %d faults counted, want 1", *faults)
	}
}

// TestLoadSwitchedOff: listeners hear that a gate has opened that a reload switched off.
func TestLoadSwitchedOff(t *testing.T) {
	g, changes, _, _ := loadFor(t, "1", "5 5 5")
	if !g.Look() {
		t.Fatal("gate is open at load 5")
	}
	g.set(LoadLimits{}, g.file)
	if g.Look() || *changes != 2 {
		t.Errorf("gate is shut without limits, or told %d changes, want 2", *changes)
	}
	if g.Look() || *changes != 2 {
		t.Errorf("told %d changes, want 2", *changes)
	}
}

func TestFS_17_LoadFileThatBlocks(t *testing.T) {
	g, _, faults, _ := loadFor(t, "1", "")
	if err := os.Remove(g.file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(g.file, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	go func() { done <- g.Look() }()
	if shut := testenv.Receive(t, "the gate, whose load file is a FIFO", done); shut || *faults != 1 {
		t.Errorf("FIFO as load file: shut %v, faults %d; want open and 1", shut, *faults)
	}
}

// TestRES_12_LoadAndClockThatJumps sets the clock by a day either way between readings.
func TestRES_12_LoadAndClockThatJumps(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			start := time.Now()
			at := func(d time.Duration) time.Time { return testenv.Jumped(t, start.Add(d), by) }

			g, changes, _, now := loadFor(t, "1", "2 2 2 1/1 1\n")
			*now = start
			if !g.Look() || *changes != 1 {
				t.Error("the load gate is open")
			}
			if err := os.WriteFile(g.file, []byte("0 0 0 1/1 1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if *now = at(readingAge / 2); !g.Look() {
				t.Error("a reading is not kept for its time")
			}
			if *now = at(2 * readingAge); g.Look() {
				t.Error("the load gate does not look again")
			}
		})
	}
}
