package testenv

import (
	"os"
	"syscall"
	"testing"
)

// SoakVariable names the environment variable that `make soak` sets.
const SoakVariable = "POSTERN_TEST_SOAK"

// Load gives how much of something a test does, such as clients or rounds: enough to show what it is about, or, under
// `make soak`, as much as finds what happens seldom.
func Load(enough, soak int) int {
	if os.Getenv(SoakVariable) != "" {
		return soak
	}
	return enough
}

// Connections gives n, or as many as half of the descriptors that this process may have: the others are for the tests
// beside this one.
func Connections(t testing.TB, n int) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(min(limit.Cur, 1<<20)) / 2; n > most {
		t.Logf("%d connections and not %d: the limit of descriptors is %d", most, n, limit.Cur)
		n = most
	}
	return n
}
