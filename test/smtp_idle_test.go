package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// idleLimit is what a session that waits may cost, in bytes of resident memory.
const idleLimit = 8 << 10

// TestIdleSessionsAreCheap opens sessions of the real program up to EHLO and
// looks what each costs. The program is built without the race detector, whose
// stacks are larger.
func TestIdleSessionsAreCheap(t *testing.T) {
	t.Parallel()
	sessions := testenv.Connections(t, 2000)
	address, p := startProxyTo(t, "smtp://127.0.0.1:9", "--max-sessions-per-address", "0", "--log-level", "error")
	for range 50 { // what the first sessions need once is not counted
		dialSMTP(t, address).Close()
	}
	before := resident(t, p.Pid())
	for range sessions {
		dialSMTP(t, address) // closed at the end of the test
	}
	each := 0
	// The last replies are out a moment before their sessions have gone to rest.
	testenv.Eventually(t, fmt.Sprintf("idle sessions of at most %d bytes", idleLimit), func() bool {
		each = (resident(t, p.Pid()) - before) / sessions
		return each <= idleLimit
	})
	t.Logf("an idle session costs %d bytes", each)
}

// resident gives the resident memory of a process in bytes.
func resident(t *testing.T, pid int) int { return statusBytes(t, pid, "VmRSS") }

// statusBytes gives a field of the status of a process that is in KiB, in bytes.
func statusBytes(t *testing.T, pid int, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if n, _ := fmt.Sscanf(line, field+": %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatalf("no %s in the status of process %d", field, pid)
	return 0
}
