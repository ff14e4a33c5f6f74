package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

type reloadSettings struct {
	Common
	Depth int `default:"1" help:"."`
}

// TestChangedSettings: a reload knows what is not what it was at the start, and what is
// wrong.
func TestChangedSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("depth 2\n")
	p := Program{Name: "x", Settings: &reloadSettings{}}
	l := &life{program: p, args: []string{"--config", file}}
	var err error
	if l.result, err = p.parse(p.Settings, l.args, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text string
		want []string
		err  string
	}{
		{"depth 2\n", nil, ""},
		{"depth 3\n", []string{"depth"}, ""},
		{"", []string{"depth"}, ""},
		{"depth 2\npidfile /x\n", []string{"pidfile"}, ""},
		{"depht 2\n", nil, "depht"},
	} {
		write(tt.text)
		got, err := l.changed()
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
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
		l := &life{notifier: &Notifier{}, env: &Env{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		l.reloaded(tt.err, tt.later)
		l.ready.stop()
		if l.notifier.status != tt.status || !strings.Contains(log.String(), tt.logged) {
			t.Errorf("status %q, log %s", l.notifier.status, log.String())
		}
	}
}
