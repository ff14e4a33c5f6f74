package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestErrandsEnd: an errand may have something to say after the end was asked
// for, and so may the statistics file, which is closed after that.
func TestErrandsEnd(t *testing.T) {
	e := newErrands()
	log := &memoryLog{}
	j := &journal{log: slog.New(log), errands: e}
	hold := make(chan struct{})
	e.add(func() { <-hold })
	e.add(func() { j.add(levelError, errors.New("disk full").Error()) })
	go close(hold)
	e.Close()
	if !strings.Contains(log.text(), "disk full") {
		t.Errorf("log:\n%s", log.text())
	}
	file, err := os.Open(os.DevNull) // not for writing
	if err != nil {
		t.Fatal(err)
	}
	s := &statLog{path: filepath.Join(t.TempDir(), "stats"), journal: j, errands: e, file: file, buf: []byte("line\n")}
	s.Close()
}
