package daemon

import (
	"os"
	"slices"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestOrphans: a child that nobody waits for is gone after the second look.
func TestOrphans(t *testing.T) {
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dead := func() bool { return slices.Contains(zombies(os.Getpid()), pid) }
	testenv.Eventually(t, "the end of a child", dead)
	var o orphans
	o.reap([]int{pid})
	if !dead() {
		t.Error("reaped at the first look: it might be one that is just being waited for")
	}
	o.reap([]int{pid})
	if dead() {
		t.Error("not reaped at the second look")
	}
	o.reap([]int{pid}) // somebody has waited for it
}
