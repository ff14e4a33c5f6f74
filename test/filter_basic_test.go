package test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
	"postern/internal/workdir"
)

// askOnce sends one request to a classic multiplexor and reads the answer to its end.
func askOnce(socket, request string) (string, error) {
	c, err := testenv.Connect("unix", socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := testenv.Patient(c); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, request+"\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// TestFilterBasicUnderRealMultiplexor has Debian's mimedefang-multiplexor drive filter-basic, with working
// directories of ours.
func TestFilterBasicUnderRealMultiplexor(t *testing.T) {
	t.Parallel()
	program := testenv.Path(t, "filter-basic driven by mimedefang-multiplexor", "mimedefang-multiplexor")
	testenv.NeedRoot(t)
	account, err := user.Lookup("defang")
	if err != nil {
		testenv.LeaveOut(t, "filter-basic driven by mimedefang-multiplexor", "no user defang")
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	dir := testenv.ShortDir(t)
	spool := filepath.Join(dir, "spool")
	settings := filepath.Join(dir, "filter.conf")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(spool, 0o700), os.Chown(spool, uid, gid),
		os.WriteFile(settings, []byte("header-value seen by the test\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(spool, "mx.sock")
	p := testenv.Start(t, exec.Command(program, "-D", "-U", "defang", "-z", spool, "-s", socket, "-f", testenv.Binary(t, "filter-basic"),
		"-F", settings, "-m", "1", "-x", "2", "-Z", "-l"))
	testenv.Eventually(t, "the multiplexor answers", func() bool {
		answer, err := askOnce(socket, "free")
		return err == nil && answer == "2\n"
	})

	s := &workdir.Spool{Dir: spool, Insecure: true}
	t.Cleanup(func() { _ = s.Close() })
	scan := func(message string) *workdir.Results {
		t.Helper()
		qid := workdir.NewQueueID()
		d, err := s.Create(qid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Remove() })
		if err := errors.Join(d.Envelope(workdir.Envelope{ID: s.NewID(), Sender: "<a@b.example>", QueueID: qid, ClientName: "h", ClientIP: "192.0.2.1"}),
			d.Recipient(workdir.Recipient{Address: "<c@d.example>"})); err != nil {
			t.Fatal(err)
		}
		c, err := d.Content()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, message); err != nil {
			t.Fatal(err)
		}
		if err := d.Finish(); err != nil {
			t.Fatal(err)
		}
		// We are root and the worker is defang: give it what it would have made itself.
		err = filepath.WalkDir(d.Path(), func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, uid, gid))
		})
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := askOnce(socket, "scan "+qid+" "+d.Path()); err != nil || answer != "ok\n" {
			t.Fatalf("scan: %q, %v\n%s", answer, err, p.Output())
		}
		r, err := d.Results()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	r := scan("Subject: x\r\n\r\nhello\r\n")
	if r.Verdict != workdir.Deliver || len(r.Changes) != 1 || r.Changes[0].Name != "X-Filtered-By" || r.Changes[0].Value != "seen by the test" {
		t.Errorf("clean message: %+v", r)
	}
	r = scan("Content-Type: application/x; name=invoice.pdf.exe\r\n\r\nMZ\r\n")
	if r.Verdict != workdir.Reject || r.DSN != "5.7.1" || !strings.Contains(r.Text, "invoice.pdf.exe") {
		t.Errorf("blocked name: %+v", r)
	}
	r = scan("Subject: x\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n")
	if r.Verdict != workdir.Reject || r.DSN != "5.7.1" {
		t.Errorf("GTUBE: %+v", r)
	}
	for request, want := range map[string]string{
		"ping":                                  "PONG\n",
		"relayok 192.0.2.1 h 1 192.0.2.25 25 Q": "ok 1 ok 250 2.1.0 0\n",
		"scan Q /nonexistent":                   "error: Cannot chdir(/nonexistent): no such file or directory\n",
		"nonsense":                              "error: Unknown command\n",
	} {
		if answer, err := askOnce(socket, request); err != nil || answer != want {
			t.Errorf("%s: %q, %v; want %q", request, answer, err, want)
		}
	}
	p.Stop(syscall.SIGTERM)
	p.Wait()
}

// TestFilterBasicCommandLine runs the program as a shell does.
func TestFilterBasicCommandLine(t *testing.T) {
	t.Parallel()
	program := testenv.Binary(t, "filter-basic")
	bad := filepath.Join(t.TempDir(), "bad.conf")
	if err := os.WriteFile(bad, []byte("# a typo\nmax-dept 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.conf")
	if err := os.WriteFile(wrong, []byte("max-depth 3\nblock-names *.x\nblock-names [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name           string
		args           []string
		stdin          string
		stdout, stderr string
		status         int
	}{
		{"requests", []string{"-server"}, "ping\nfoo\n", "PONG\nerror: Unknown command\n", "", 0},
		{"end at once", []string{"-f", "/dev/null", "-serveru"}, "", "", "", 0},
		{"test", []string{"-f", "/dev/null", "-test"}, "", "seems syntactically correct", "", 0},
		{"scan one directory", []string{"/nonexistent/dir"}, "", "", "/nonexistent/dir", 1},
		{"nothing to do", nil, "", "", "filter-basic: error: -server", 64},
		{"two modes", []string{"-server", "-test"}, "", "", "filter-basic: error:", 64},
		{"unknown flag", []string{"--nonsense", "-server"}, "", "", "nonsense", 64},
		{"typo in the file", []string{"-f", bad, "-server"}, "", "", bad + ":2: max-dept", 78},
		{"bad value in the file", []string{"--config", wrong, "--check"}, "", "", wrong + ":3: block-names", 78},
		{"check", []string{"--max-parts", "7", "--check"}, "", "max-parts", "", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(program, tt.args...)
			cmd.Stdin = strings.NewReader(tt.stdin)
			stdout, stderr, status := testenv.RunCmd(t, cmd)
			if !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || status != tt.status {
				t.Errorf("status %d, want %d\nstdout %q, want %q\nstderr %q, want %q", status, tt.status, stdout, tt.stdout, stderr, tt.stderr)
			}
		})
	}
}

// TestFilterAsAnotherAccount has a worker of another account scan a directory that is made for its group.
func TestFilterAsAnotherAccount(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	const uid, gid = 12345, 12346
	spool := filepath.Join(testenv.ShortDir(t), "spool")
	if err := errors.Join(os.Chmod(filepath.Dir(spool), 0o755), os.Mkdir(spool, 0o710), os.Chown(spool, -1, gid)); err != nil {
		t.Fatal(err)
	}
	s := &workdir.Spool{Dir: spool, Group: strconv.Itoa(gid)}
	t.Cleanup(func() { _ = s.Close() })
	d, err := s.Create("AB12")
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(c, "Subject: x\r\n\r\nhello\r\n")
	if err := errors.Join(err, d.Envelope(workdir.Envelope{ID: "a", Sender: "<>"}), d.Finish()); err != nil {
		t.Fatal(err)
	}
	// The multiplexor's -G sets this umask.
	cmd := exec.Command("/bin/sh", "-c", `umask 027 && exec "$0" --config /dev/null -server`, testenv.Binary(t, "filter-basic"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, NoSetGroups: false}}
	cmd.Stdin = strings.NewReader("scan AB12 " + d.Path() + "\n")
	stdout, stderr, status := testenv.RunCmd(t, cmd)
	if stdout != "ok\n" || status != 0 {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	info, err := os.Stat(filepath.Join(d.Path(), "RESULTS"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid || info.Mode().Perm() != 0o640 {
		t.Errorf("RESULTS of %d:%d with %v, want %d:%d with 0640", st.Uid, st.Gid, info.Mode(), uid, gid)
	}
	if r, err := d.Results(); err != nil || len(r.Changes) != 1 {
		t.Errorf("results %+v, %v", r, err)
	}
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
}
