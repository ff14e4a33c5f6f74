package main

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// resolveCached is RESOLVE_CACHED of linux/openat2.h.
const resolveCached = 0x20

// newSpoolGuard makes a guard of spool, an absolute path.
func newSpoolGuard(spool string) (*spoolGuard, error) {
	real, err := filepath.EvalSymlinks(spool)
	if err != nil {
		return nil, fmt.Errorf("look at the spool directory: %w", err)
	}
	g := &spoolGuard{spool: filepath.Clean(spool), real: real, turns: make(chan struct{}, maxTurns)}
	if g.dir, err = unix.Open(real, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the spool directory: %w", err)
	}
	return g, nil
}

// quick reports whether the path below the spool is a directory, by what the system
// knows without asking the disk, so that it does not block. False means that it is
// not known. openat2(2)
func (g *spoolGuard) quick(path string) bool {
	fd, err := unix.Openat2(g.dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | resolveCached,
	})
	if err != nil {
		return false
	}
	_ = unix.Close(fd) // it was never used
	return true
}

// Close frees the descriptor.
func (g *spoolGuard) Close() { _ = unix.Close(g.dir) }
