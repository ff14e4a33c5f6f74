package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// daemonArgs gives the arguments that make a daemon start in the foreground,
// with everything below dir.
func daemonArgs(t *testing.T, program, dir string) []string {
	var args []string
	switch program {
	case "multiplexor":
		args = []string{"-D", "-s", filepath.Join(dir, "requests"), "-z", testenv.DaemonDir(t, filepath.Join(dir, "spool")), "-f", testenv.Binary(t, "filter-basic")}
	case "smtp-proxy":
		args = []string{"--maxloadavg", "0", "--smtp", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--upstream", "maildir:" + testenv.DaemonDir(t, filepath.Join(dir, "Maildir"))}
	case "pop3-stamp":
		args = []string{"--pop3", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--upstream", fmt.Sprintf("pop3://127.0.0.1:%d", testenv.FreePort(t)),
			"--clientip-dir", testenv.DaemonDir(t, filepath.Join(dir, "stamps"))}
	}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	return args
}

// TestTypoInSettings gives every daemon a settings file with a key that there
// is not, and one with a value that is none.
func TestTypoInSettings(t *testing.T) {
	t.Parallel()
	for _, program := range daemons {
		for name, line := range map[string]string{"key": "pidfiel /nowhere", "value": "log-level lout"} {
			t.Run(program+"/"+name, func(t *testing.T) {
				dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
				file := filepath.Join(t.TempDir(), "settings.conf")
				if err := os.WriteFile(file, []byte("# one comment\n\n"+line+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				args := append(daemonArgs(t, program, dir), "--config", file)
				stdout, stderr, status := testenv.Run(t, testenv.Binary(t, program), args...)
				key, _, _ := strings.Cut(line, " ")
				if status != 78 || !strings.Contains(stderr, file+":3") || !strings.Contains(stderr, key) {
					t.Errorf("status %d, want 78 and %s:3 and %s in:\n%s%s", status, file, key, stdout, stderr)
				}
			})
		}
	}
}

// TestSocketInUse has every daemon find a live process on one of its sockets:
// the daemon must end, and the other process keep its socket.
func TestSocketInUse(t *testing.T) {
	t.Parallel()
	for _, program := range daemons {
		t.Run(program, func(t *testing.T) {
			dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
			path := filepath.Join(dir, "taken")
			live, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer live.Close()
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			args := append(daemonArgs(t, program, dir), "--notify", path)
			p := testenv.Start(t, exec.Command(testenv.Binary(t, program), args...))
			if status := p.Wait(); status == 0 {
				t.Errorf("status 0, want an error")
			}
			if !strings.Contains(p.Output(), path) {
				t.Errorf("the message does not name %s:\n%s", path, p.Output())
			}
			conn, err := testenv.Connect("unix", path)
			if err != nil {
				t.Fatalf("the socket was stolen: %v", err)
			}
			conn.Close()
			testenv.Patient(live.(*net.UnixListener))
			// The first connections may be the daemon's own look whether it is alive.
			if _, err := live.Accept(); err != nil {
				t.Errorf("the live process gets no connection: %v", err)
			}
		})
	}
}
