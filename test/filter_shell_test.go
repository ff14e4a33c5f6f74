package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
	"postern/internal/workdir"
)

// TestFilterPageExample runs the worker that postern-filter(7) shows.
func TestFilterPageExample(t *testing.T) {
	t.Parallel()
	page := readTree(t, "man/postern-filter.7")
	_, script, ok := strings.Cut(page, "#!/bin/sh\n")
	script, _, ended := strings.Cut(script, ".Ed\n")
	if !ok || !ended {
		t.Fatal("the page has no example in the shell")
	}
	file := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &workdir.Spool{Dir: testenv.ShortDir(t), Insecure: true}
	t.Cleanup(func() { _ = s.Close() })
	for subject, want := range map[string]workdir.Verdict{"hello": workdir.Deliver, "you won the Lottery": workdir.Reject} {
		d, err := s.Create(workdir.NewQueueID())
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Content()
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write([]byte("Subject: " + subject + "\r\n\r\nx\r\n"))
		if err := errors.Join(err, d.Envelope(workdir.Envelope{ID: "a", Sender: "<>"}), d.Finish()); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", file, "-server")
		cmd.Stdin = strings.NewReader("ping\nrelayok 192.0.2.1 h 1 192.0.2.2 25 Q\nscan Q " + d.Path() + "\nfoo\n")
		stdout, stderr, status := testenv.RunCmd(t, cmd)
		if stdout != "PONG\nok 1\nok\nerror: Unknown command\n" || status != 0 {
			t.Errorf("status %d, answers %q, errors %q", status, stdout, stderr)
		}
		if r, err := d.Results(); err != nil || r.Verdict != want {
			t.Errorf("%s: %+v, %v; want %v", subject, r, err, want)
		}
		_ = d.Remove()
	}
}
