package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestQuarantineIsThere: MIMEDefang's worker loses without a word what it cannot put into its quarantine, so that --check and
// the start say so.
func TestQuarantineIsThere(t *testing.T) {
	t.Parallel()
	outer := testenv.ShortDir(t)
	good, locked := testenv.DaemonDir(t, filepath.Join(outer, "good")), filepath.Join(outer, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	account, drops := testenv.DaemonAccount()
	if !drops {
		account = ""
	}
	for _, tt := range []struct{ worker, dir, want string }{
		{"/usr/bin/mimedefang.pl", good, ""}, {"/usr/bin/mimedefang.pl", locked, "permission denied"},
		{"/opt/mimedefang.pl", filepath.Join(outer, "none"), "no such file"}, {"/usr/libexec/postern/filter-basic", locked, ""},
	} {
		s := &settings{Worker: tt.worker, User: account}
		if got := s.quarantineLost(tt.dir); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s with %s: %q, want %q", tt.worker, tt.dir, got, tt.want)
		}
	}
	if _, err := os.Stat(originalQuarantine); err == nil {
		return // of a MIMEDefang that is installed
	}
	r := prepare(t)
	worker := r.path(theirWorkerName)
	if err := os.Rename(r.worker, worker); err != nil {
		t.Fatal(err)
	}
	r.worker = worker
	bin := testenv.Binary(t, "multiplexor")
	if _, stderr, status := testenv.Run(t, bin, r.args("--check", "--config", "/dev/null")...); status != 0 || !strings.Contains(stderr, "quarantine will be lost") {
		t.Errorf("--check: status %d, %q", status, stderr)
	}
	r.start(exec.Command(bin, r.args("-D")...))
	r.logged("quarantine will be lost")
	r.end()
}
