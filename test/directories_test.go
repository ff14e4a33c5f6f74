package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestFS_22_UnsafeDirectories: no daemon starts with a directory in which, or on the way to which, somebody else could
// put something, and --check says so as well.
func TestFS_22_UnsafeDirectories(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	kinds := map[string]func(dir string) error{
		"sticky, as a tmpfs is": func(dir string) error { return os.Chmod(dir, os.ModeSticky|0o777) },
		"for everybody":         func(dir string) error { return os.Chmod(dir, 0o777) },
		"for another group":     func(dir string) error { return errors.Join(os.Chown(dir, 0, 12345), os.Chmod(dir, 0o775)) },
		"of another user":       func(dir string) error { return errors.Join(os.Chown(dir, 12345, 12345), os.Chmod(dir, 0o755)) },
		"below another's": func(dir string) error {
			return errors.Join(os.Chmod(dir, 0o755), os.Chown(filepath.Dir(dir), 12345, 12345))
		},
		"by another's link": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir), os.Lchown(dir, 12345, 12345))
		},
	}
	programs := []struct {
		name     string
		settings []string // DIR stands for the directory
		more     []string
	}{
		{"smtp-proxy", []string{"--statdir=DIR", "--clientip-dir=DIR", "--spool=DIR --multiplexor=/none", "--hold=maildir:DIR", "--notify=DIR/s", "--pidfile=DIR/pid"},
			[]string{"--config=/dev/null", "--user=nobody", "--maxloadavg=0", "--upstream=smtp://127.0.0.1:1", "--smtp=tcp:127.0.0.1:PORT"}},
		{"pop3-stamp", []string{"--statdir=DIR", "--clientip-dir=DIR", "--notify=DIR/s", "--pidfile=DIR/pid"},
			[]string{"--config=/dev/null", "--user=nobody", "--upstream=pop3://127.0.0.1:1", "--pop3=inet:PORT"}},
		{"multiplexor", []string{"--requests=DIR/s", "--notify=DIR/s", "--pidfile=DIR/pid"},
			[]string{"--config=/dev/null", "--user=nobody", "--foreground", "--worker=/bin/cat", "--spool=SPOOL", "--requests=SPOOL/s"}},
	}
	for _, p := range programs {
		for kind, spoil := range kinds {
			for _, setting := range p.settings {
				t.Run(strings.Join([]string{p.name, setting, kind}, " "), func(t *testing.T) {
					base := testenv.ShortDir(t)
					dir, spool := filepath.Join(base, "a", "b"), filepath.Join(base, "spool")
					if err := errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(spool, 0o755), spoil(dir), os.Chown(spool, 65534, 65534)); err != nil {
						t.Fatal(err)
					}
					fill := strings.NewReplacer("DIR", dir, "SPOOL", spool, "PORT", fmt.Sprint(testenv.FreePort(t)))
					args := strings.Fields(fill.Replace(strings.Join(append(p.more, setting), " ")))
					for _, check := range []string{"", "--check"} {
						_, stderr, status := testenv.Run(t, testenv.Binary(t, p.name), strings.Fields(strings.Join(append(args, check), " "))...)
						if status == 0 || !strings.Contains(stderr, "not safe to use") || !strings.Contains(stderr, dir) {
							t.Errorf("%s: status %d, %s", check, status, stderr)
						}
						if check != "" && status != 78 {
							t.Errorf("--check: status %d, want 78", status)
						}
					}
				})
			}
		}
	}
}

// TestMissingDirectoriesAreSaid: --check says which directory is not there yet.
func TestMissingDirectoriesAreSaid(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t) + "/none"
	for program, args := range map[string][]string{
		"smtp-proxy": {"--upstream=smtp://127.0.0.1:1", "--smtp=tcp:127.0.0.1:1", "--statdir=" + dir, "--clientip-dir=" + dir, "--notify=" + dir + "/s"},
		"pop3-stamp": {"--upstream=pop3://127.0.0.1:1", "--pop3=inet:1", "--statdir=" + dir, "--clientip-dir=" + dir, "--pidfile=" + dir + "/pid"},
	} {
		args = append(args, "--config=/dev/null", "--check")
		_, stderr, status := testenv.Run(t, testenv.Binary(t, program), args...)
		if status != 0 || strings.Count(stderr, syscall.ENOENT.Error()) != 3 {
			t.Errorf("%s: status %d, %s", program, status, stderr)
		}
	}
}
