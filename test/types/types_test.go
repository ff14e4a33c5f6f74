package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhatOtherMachinesRefuse: what does not fit into 32 bits, in a test too, and what another system does not have.
func TestWhatOtherMachinesRefuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module example\n",
		"x.go":       "package example\n\nimport \"syscall\"\n\nvar _ = syscall.Kill\n",
		"x_linux.go": "package example\n\nimport \"syscall\"\n\nvar _ = syscall.EpollWait\n",
		"x_test.go":  "package example\n\nvar _ int = 1 << 40\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		system, arch string
		tests        bool
		want         int
	}{
		{"linux", "arm64", true, 0},
		{"linux", "386", true, 1},
		{"linux", "386", false, 0},
		{"freebsd", "amd64", false, 0},
		{"windows", "amd64", false, 1},
	} {
		found, err := check(newReader(), dir, tt.system, tt.arch, tt.tests, []string{"."})
		if err != nil || len(found) != tt.want {
			t.Errorf("%s/%s with tests %t: %v (%v), want %d errors", tt.system, tt.arch, tt.tests, found, err, tt.want)
		}
	}
}
