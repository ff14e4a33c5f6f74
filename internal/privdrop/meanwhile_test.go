package privdrop

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"postern/internal/testenv"
)

// TestMeanwhile: what runs has the rights of the account, with its threads, and the process is root again, whatever became of it.
func TestMeanwhile(t *testing.T) {
	testenv.NeedRoot(t)
	dir := testenv.ShortDir(t)
	if err := errors.Join(os.Chown(dir, 0, 4711), os.Chmod(dir, 0o770)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	write := func() error {
		var err error
		var other sync.WaitGroup
		other.Go(func() { err = os.WriteFile(filepath.Join(dir, "file"), nil, 0o600) })
		other.Wait()
		return err
	}
	if err := Meanwhile(Account{UID: 65534, GID: 65534, Groups: []int{65534}}, write); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("nobody writes where only a group may: %v", err)
	}
	if err := Meanwhile(Account{UID: 65534, GID: 65534, Groups: []int{65534, 4711}}, write); err != nil {
		t.Errorf("a member of the group: %v", err)
	}
	after, err := os.Getgroups()
	if err != nil || !slices.Equal(before, after) || os.Geteuid() != 0 || os.Getegid() != 0 {
		t.Errorf("afterwards user %d, group %d, groups %v, %v; want root with %v", os.Geteuid(), os.Getegid(), after, err, before)
	}
}
