package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/multiplexor/pool"
)

// poisonKeeper returns a function that copies a working directory, which must be
// below spool, into the directory keep. It returns at once; report gets the
// outcome later, from another goroutine.
func poisonKeeper(spool, keep string, report func(text string, err error)) func(dir string) {
	return func(dir string) {
		go func() {
			if !reallyBelow(spool, dir) {
				report(fmt.Sprintf("%s is not below %s: not kept", pool.LogPath(dir), spool), nil)
				return
			}
			to := filepath.Join(keep, fmt.Sprintf("%s-%d", filepath.Base(dir), time.Now().UnixNano()))
			if err := copyDir(dir, to); err != nil {
				report("", fmt.Errorf("keep working directory %s: %w", pool.LogPath(dir), rootCause(err)))
				return
			}
			report(fmt.Sprintf("working directory %s kept as %s", pool.LogPath(dir), pool.LogPath(to)), nil)
		}()
	}
}

// copyDir copies a directory without following links out of it.
func copyDir(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return os.CopyFS(to, root.FS())
}
