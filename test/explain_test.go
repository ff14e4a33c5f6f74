package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestExplainJudgesAsWhoServes: what root may look into says nothing of the proxy, so that explain becomes its user.
func TestExplainJudgesAsWhoServes(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	account, _ := testenv.DaemonAccount()
	outer := testenv.ShortDir(t)
	locked := filepath.Join(outer, "locked")
	if err := os.Mkdir(locked, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, denied := range map[string]bool{locked: true, testenv.DaemonDir(t, filepath.Join(outer, "d")): false} {
		stdout, stderr, status := testenv.Run(t, testenv.Binary(t, "smtp-proxy"), "--user", account, "--maxloadavg", "0", "--clientip-dir", dir, "explain", "--client", "192.0.2.1")
		if status != 75 || strings.Contains(stderr, "permission denied") != denied {
			t.Errorf("%s: status %d, want 75, and that it may not look: %v\n%s%s", dir, status, denied, stdout, stderr)
		}
	}
}
