package test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// notFiles are what may stand at a name in place of a file, and what is said of it.
var notFiles = map[string]struct {
	make func(path string) error
	says string
}{
	"FIFO":      {func(path string) error { return syscall.Mkfifo(path, 0o644) }, "not a regular file"},
	"/dev/zero": {func(path string) error { return os.Symlink("/dev/zero", path) }, "not a regular file"},
	"directory": {func(path string) error { return os.Mkdir(path, 0o755) }, "not a regular file"},
	"10 GB": {func(path string) error {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, 10<<30)
	}, "too large"},
}

// replace puts one of them at the name.
func replace(t *testing.T, path string, with func(string) error) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := with(path); err != nil {
		t.Fatal(err)
	}
}

// namedFiles makes a file of each kind that the settings of a program name, and gives the arguments that name them.
func namedFiles(t *testing.T, program string) (files map[string]string, args []string) {
	t.Helper()
	dir := testenv.ShortDir(t)
	files = map[string]string{"config": filepath.Join(dir, "settings.conf")}
	if err := os.WriteFile(files["config"], []byte("# nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if program != "multiplexor" {
		ca := testenv.NewAuthority(t)
		files["tls-cert"], files["tls-key"] = ca.Files(dir, "clients")
		files["upstream-tls-cert"], files["upstream-tls-key"] = ca.Files(testenv.ShortDir(t), "server")
		files["tls-client-ca"] = ca.File(dir)
		files["upstream-tls-ca"] = ca.File(testenv.ShortDir(t))
		readable(t, files["tls-key"])
		readable(t, files["upstream-tls-key"])
		args = []string{"--upstream-tls", "verify", "--tls-client-cert", "ask"}
	}
	switch program {
	case "pop3-stamp":
		delete(files, "upstream-tls-cert")
		delete(files, "upstream-tls-key")
	case "postern-board": // has no next hop
		maps.DeleteFunc(files, func(setting, _ string) bool { return strings.HasPrefix(setting, "upstream-") })
		args = []string{"--https", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--tls-client-cert", "require"}
	}
	for setting, path := range files {
		args = append(args, "--"+setting, path)
	}
	return files, args
}

// TestFS_24_NamedFilesAtTheStart: what is no small regular file is refused at the start and by --check at once, with a
// line that names it.
func TestFS_24_NamedFilesAtTheStart(t *testing.T) {
	t.Parallel()
	for _, program := range daemons {
		files, named := namedFiles(t, program)
		args := append(daemonArgs(t, program, testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))), named...)
		for setting, path := range files {
			for kind, bad := range notFiles {
				t.Run(program+"/"+setting+"/"+kind, func(t *testing.T) {
					good := path + ".good"
					if err := os.Rename(path, good); err != nil {
						t.Fatal(err)
					}
					defer os.Rename(good, path)
					defer os.RemoveAll(path)
					replace(t, path, bad.make)
					for _, check := range [][]string{nil, {"--check"}} {
						_, stderr, status := testenv.Run(t, testenv.Binary(t, program), append(check, args...)...)
						if status != 78 || !strings.Contains(stderr, path) || !strings.Contains(stderr, bad.says) || strings.Count(stderr, "\n") > 3 {
							t.Errorf("%v: status %d, want 78 and %q of %s in:\n%s", check, status, bad.says, path, stderr)
						}
					}
				})
			}
		}
	}
}

// tlsGreeting returns the certificate of a server at address that greets, or nil.
func tlsGreeting(address string) []byte {
	nc, err := testenv.Connect("tcp", address)
	if err != nil {
		return nil
	}
	defer nc.Close()
	_ = testenv.Patient(nc)
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if n, err := c.Read(make([]byte, 4)); err != nil || n == 0 {
		return nil
	}
	return c.ConnectionState().PeerCertificates[0].Raw
}

// TestFS_25_NamedFilesAtReload: a reload that finds one is refused, and service goes on with what was read before.
func TestFS_25_NamedFilesAtReload(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	for _, program := range []string{"smtp-proxy", "pop3-stamp"} {
		t.Run(program, func(t *testing.T) {
			files, args := namedFiles(t, program)
			listener, scheme := "smtps", "smtp://"
			if program == "pop3-stamp" {
				listener, scheme = "pop3s", "pop3://"
			}
			address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
			args = append(args, "--"+listener, "tcp:"+address, "--upstream", scheme+b.Addr)
			if program == "pop3-stamp" {
				args = append(args, "--clientip-dir", testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "stamps")), "--hostname", "pop.test")
			} else {
				args = append(args, "--maxloadavg", "0")
			}
			if account, drops := testenv.DaemonAccount(); drops {
				args = append(args, "--user", account)
			}
			p := testenv.Start(t, exec.Command(testenv.Binary(t, program), args...))
			testenv.Eventually(t, "the greeting", func() bool {
				if !p.Running() {
					t.Fatalf("%s has ended", program)
				}
				return tlsGreeting(address) != nil
			})
			before := tlsGreeting(address)
			refused := 0
			for setting, path := range files {
				for kind, bad := range notFiles {
					kept, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					replace(t, path, bad.make)
					refused++
					p.Stop(syscall.SIGHUP)
					testenv.Eventually(t, "the refusal of "+setting+" as "+kind, func() bool {
						return strings.Count(p.Output(), "settings are not reloaded") == refused
					})
					if out := p.Output(); !strings.Contains(out[strings.LastIndex(out, "settings are not reloaded"):], path) {
						t.Errorf("%s as %s: the line does not name %s", setting, kind, path)
					}
					replace(t, path, func(path string) error { return os.WriteFile(path, kept, 0o644) })
				}
			}
			if now := tlsGreeting(address); now == nil || !bytes.Equal(now, before) {
				t.Error("clients are not shown the certificate of before")
			}
			p.Stop(syscall.SIGHUP)
			p.WaitOutput("settings reloaded")
			p.Stop(syscall.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d at the end", status)
			}
		})
	}
}
