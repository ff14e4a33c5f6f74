package privdrop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestAs: another account meets its own rights, and the process keeps its.
func TestAs(t *testing.T) {
	testenv.NeedRoot(t)
	secret := filepath.Join(testenv.ShortDir(t), "secret")
	if err := os.WriteFile(secret, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		f, err := os.Open(secret)
		if err == nil {
			f.Close()
		}
		return err
	}
	nobody := Account{UID: 65534, GID: 65534}
	if err := As(nobody, open); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("nobody opens a file of root: %v", err)
	}
	if err := os.Chown(secret, 0, 4711); err != nil {
		t.Fatal(err)
	}
	if err := As(Account{UID: 65534, GID: 65534, Groups: []int{4711}}, open); err != nil {
		t.Errorf("a member of its group: %v", err)
	}
	if err := As(nobody, func() error {
		if os.Geteuid() != 65534 {
			return fs.ErrInvalid
		}
		return nil
	}); err != nil {
		t.Errorf("the thread is not nobody: %v", err)
	}
	if os.Geteuid() != 0 || open() != nil {
		t.Error("the process is not root any more")
	}
}

// TestAsLeavesNoThread calls for all threads right after As, which ends the process if one of them differs.
func TestAsLeavesNoThread(t *testing.T) {
	testenv.NeedRoot(t)
	for range 200 {
		if err := As(Account{UID: 65534, GID: 65534}, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		groups, err := syscall.Getgroups()
		if err == nil {
			err = syscall.Setgroups(groups)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
