package boot

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// usualTree is where the Debian tree is made, once for all runs.
const usualTree = "/var/tmp/postern-boot-tree"

// TestBoot plays each check on a machine of its own, once prepare.sh has made the package and the Debian tree.
func TestBoot(t *testing.T) {
	t.Parallel()
	testenv.NotQuick(t, "needs root and some minutes")
	tree := cmp.Or(os.Getenv("POSTERN_BOOT_TREE"), usualTree)
	if err := prepare(tree); errors.Is(err, errImpossible) {
		testenv.Impossible(t, err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	s, err := newSite(testenv.Root(t), tree)
	if err != nil {
		testenv.Impossible(t, err.Error())
	}
	t.Cleanup(s.remove)
	t.Cleanup(atInterrupt(s.remove))
	if err := s.install(); errors.Is(err, errImpossible) {
		testenv.Impossible(t, err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			if err := s.try(c); err != nil {
				t.Error(err)
			}
			t.Logf("%.1f s", time.Since(began).Seconds())
		})
	}
}

// TestWhatAKilledRunHasLeft: the next one removes it, and nothing of a run that goes on.
func TestWhatAKilledRunHasLeft(t *testing.T) {
	t.Parallel()
	groups := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	places := map[int]string{ended.Process.Pid: "", os.Getpid(): ""}
	for pid := range places {
		places[pid] = filepath.Join(groups, prefix+strconv.Itoa(pid))
		if err := os.MkdirAll(filepath.Join(places[pid], "1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(groups)
	if _, err := os.Stat(places[ended.Process.Pid]); err == nil {
		t.Error("what is left of a process that has ended stays")
	}
	if _, err := os.Stat(places[os.Getpid()]); err != nil {
		t.Errorf("what belongs to this process: %v", err)
	}
}
