package procstat

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestRead(t *testing.T) {
	st, err := Read(os.Getpid())
	if err != nil || st.Parent != os.Getppid() || st.Start <= 0 || st.State == 'Z' {
		t.Errorf("this process: %+v, %v", st, err)
	}
	if !slices.Contains(All(), os.Getpid()) {
		t.Error("this process is none of all")
	}
	if st, err := Read(1 << 30); err == nil {
		t.Errorf("no process: %+v", st)
	}
}

// TestZombie: the name of the program may look like the fields behind it.
func TestZombie(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a) S 1 (b")
	if err := os.WriteFile(name, []byte("#!/bin/sh\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	pid, err := syscall.ForkExec(name, []string{name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Wait4(pid, nil, 0, nil)
	var st Stat
	testenv.Eventually(t, "the end of a child", func() bool {
		st, err = Read(pid)
		return err == nil && st.State == 'Z'
	})
	if st.Parent != os.Getpid() || st.Status.ExitStatus() != 7 || st.User > time.Minute {
		t.Errorf("%+v", st)
	}
}
