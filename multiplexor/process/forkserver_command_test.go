package process

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestForkServerOfNoFile: what stands in place of the worker program is not waited for, nor read without end.
func TestForkServerOfNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/zero", t.TempDir(), "/nonexistent"} {
		pr := &Program{Path: path}
		if runs, _, perl := pr.forkServerCommand(); runs != path || perl {
			t.Errorf("%s: runs %s, perl %v", path, runs, perl)
		}
	}
}

func TestForkServerCommand(t *testing.T) {
	dir := t.TempDir()
	script := func(name, head string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(head), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name, head string
		perl       bool
		before     []string // of the arguments of ours and the program
	}{
		{"plain", "#!/usr/bin/perl\n", true, []string{"/usr/bin/perl"}},
		{"switches", "#! /usr/bin/perl -w\nuse strict;\n", true, []string{"/usr/bin/perl", "-w"}},
		{"version", "#!/opt/perl5.40.1/bin/perl5.40.1\n", true, []string{"/opt/perl5.40.1/bin/perl5.40.1"}},
		{"env", "#!/usr/bin/env perl\n", true, []string{"/usr/bin/env", "perl"}},
		{"env-S", "#!/usr/bin/env -S perl -T\n", true, []string{"/usr/bin/env", "-S", "perl", "-T"}},
		{"shell", "#!/bin/sh\n# perl\n", false, nil},
		{"env-python", "#!/usr/bin/env python3 perl\n", false, nil},
		{"binary", "\x7fELF\x02perl\n", false, nil},
		{"empty", "", false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pr := &Program{Path: script(tt.name, tt.head), Filter: "/f", StatusPipe: true}
			path, argv, perl := pr.forkServerCommand()
			want := []string{tt.name, "-f", "/f", "-embserveru"}
			wantPath := pr.Path
			if tt.perl {
				want[0], wantPath = pr.Path, tt.before[0]
				if len(argv) > len(tt.before) {
					argv = slices.Delete(argv, len(tt.before), len(tt.before)+1) // the loader
				}
				want = append(tt.before, want...)
			}
			if path != wantPath || perl != tt.perl {
				t.Errorf("runs %s, perl %v; want %s, %v", path, perl, wantPath, tt.perl)
			}
			if d := cmp.Diff(want, argv); d != "" {
				t.Error(d)
			}
		})
	}
}
