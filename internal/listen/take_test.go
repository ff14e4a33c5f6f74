package listen

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"log/slog"
	"postern/internal/testenv"
)

func TestTake(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	set, err := Open([]Request{{Name: "a", Specs: []string{path}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fd, remove, err := Take(set["a"][0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	conn, err := testenv.Connect("unix", path)
	if err != nil {
		t.Fatalf("connect after Take: %v", err)
	}
	defer conn.Close()
	got, _, err := unix.Accept(fd)
	if err != nil {
		t.Fatalf("accept on the descriptor taken: %v", err)
	}
	unix.Close(got)
	if _, _, err := unix.Accept(fd); err != unix.EAGAIN {
		t.Errorf("accept with nobody waiting: %v, want EAGAIN", err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket file after remove: %v, want %v", err, fs.ErrNotExist)
	}
}
