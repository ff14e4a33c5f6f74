package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type reloadSettings struct {
	Common
	Depth int `default:"1" help:"."`
}

// TestReread: a reload reads the settings as the start did, and knows which of those that are looked at once are not
// what they were, and what is wrong.
func TestReread(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("depth 2\n")
	p := Program{Name: "x", Settings: &reloadSettings{}}
	l := &instance{program: p, args: []string{"--config", file}}
	var err error
	if l.result, err = p.parse(p.Settings, l.args, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text  string
		depth int
		want  []string
		err   string
	}{
		{"depth 2\n", 2, nil, ""},
		{"depth 3\n", 3, []string{"depth"}, ""},
		{"", 1, []string{"depth"}, ""},
		{"depth 2\npidfile /x\n", 2, nil, ""},
		{"depth 2\nlog-level debug\n", 2, []string{"log-level"}, ""},
		{"depht 2\n", 0, nil, "depht"},
	} {
		write(tt.text)
		fresh := &reloadSettings{}
		got, err := l.reread(fresh, []string{"depth", "log-level"})
		if err == nil && (fresh.Depth != tt.depth || fresh.SyslogTag != "x") {
			t.Errorf("%q: settings %+v", tt.text, fresh)
		}
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %v, %v", tt.text, got, err)
		}
	}
	if l.program.Settings.(*reloadSettings).Depth != 2 {
		t.Error("the settings in force have changed")
	}
}

// TestReloaded: a reload that went wrong is an error in the log and in the status.
func TestReloaded(t *testing.T) {
	var log bytes.Buffer
	for _, tt := range []struct {
		err    error
		later  []string
		status string
		logged string
	}{
		{errors.New("no such key"), nil, "reload has failed, all stays as it was: no such key", "level=ERROR"},
		{nil, []string{"a", "b"}, "reloaded; not in force before a restart: a, b", "not_in_force=\"a, b\""},
		{nil, nil, "reloaded", "msg=\"settings reloaded\""},
	} {
		log.Reset()
		l := &instance{readied: make(chan struct{}), notifier: &notifier{}, env: &Env{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		l.reloaded(tt.err, tt.later)
		l.ready.stop()
		if l.notifier.status != tt.status || !strings.Contains(log.String(), tt.logged) {
			t.Errorf("status %q, log %s", l.notifier.status, log.String())
		}
	}
}
