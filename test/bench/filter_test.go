package main

import (
	"io"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func TestReadBenchmarks(t *testing.T) {
	got := readBenchmarks("goos: linux\nBenchmarkOrdinary/all-views-2 \t 3 \t 1500 ns/op \t 20.50 MB/s \t 7 B/op\nBenchmarkDirectory-2 \t 500 \t 90123.5 ns/op \t 30 allocs/op\nPASS\n")
	want := map[string]benchmark{"Ordinary/all": {1500, 20.5}, "Directory": {90123, 0}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestMessagesAreFiltered has each way with the C worker take some messages: those with a filter scan all of them.
func TestMessagesAreFiltered(t *testing.T) {
	const what = "the ways through a filter as the benchmark takes them"
	testenv.Need(t, what, "cc", "postfix", "smtp-source", "mimedefang", original)
	testenv.NeedRoot(t)
	b := testBench(t)
	b.bin = filepath.Dir(testenv.Binary(t, "smtp-proxy"))
	testenv.Binary(t, "multiplexor")
	var err error
	if b.worker, err = b.compile("worker"); err != nil {
		t.Fatal(err)
	}
	rows, err := b.filteredRows(b.filterKinds()[:1])
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 4 {
		t.Fatalf("%d ways", len(rows))
	}
	for _, r := range rows {
		r.messages = 4
		if err := b.filteredRun(r, smtpLoad{2, small, false}); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		if r.asked == "" {
			continue
		}
		conn := testenv.Dial(t, "unix", r.asked)
		testenv.Patient(conn)
		_, err := io.WriteString(conn, "msgs\n")
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		conn.Close()
		if scans := strings.TrimSpace(string(answer)); err != nil || scans != "4" {
			t.Errorf("%s: %q scans, %v", r.name, scans, err)
		}
	}
}
