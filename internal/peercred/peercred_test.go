package peercred

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"postern/internal/testenv"
)

func TestOf(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	testenv.Dial(t, "unix", l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cred, err := Of(conn)
	if err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Geteuid() {
		t.Errorf("%+v, %v", cred, err)
	}
	conn.Close()
	if cred, err := Of(conn); err == nil {
		t.Errorf("of a closed connection: %+v", cred)
	}
	pipe, _ := net.Pipe()
	if cred, err := Of(pipe); err == nil {
		t.Errorf("of a pipe: %+v", cred)
	}
}

func TestUsers(t *testing.T) {
	if ids, err := Users("users", []string{"root", "4711"}); err != nil || !slices.Equal(ids, []uint32{0, 4711}) {
		t.Errorf("%v, %v", ids, err)
	}
	for _, name := range []string{"no such user", "-1", "", "4294967296"} {
		if ids, err := Users("users", []string{name}); err == nil {
			t.Errorf("%q: %v", name, ids)
		}
	}
}
