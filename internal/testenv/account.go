package testenv

import (
	"os"
	"os/user"
	"strconv"
	"testing"
)

// chown gives a file to a user and the user's group.
func chown(t testing.TB, path, name string) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

// DaemonAccount is who a daemon is to become that a test starts: nobody when
// the test runs as root, else nobody else.
func DaemonAccount() (name string, drops bool) { return "nobody", os.Geteuid() == 0 }

// DaemonDir makes a directory that a daemon of DaemonAccount may write to, and
// nobody else.
func DaemonDir(t testing.TB, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if name, drops := DaemonAccount(); drops {
		chown(t, path, name)
	}
	return path
}
