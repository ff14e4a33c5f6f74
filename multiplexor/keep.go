package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"postern/multiplexor/pool"
)

// poisonKeeper returns a function that copies a working directory, which must be
// below spool, into the directory keep. It returns at once; the
// outcome is logged later.
func poisonKeeper(spool, keep string, log *slog.Logger) func(dir string) {
	return func(dir string) {
		go func() {
			if !reallyBelow(spool, dir) {
				log.Info(fmt.Sprintf("%s is not below %s: not kept", pool.LogPath(dir), spool))
				return
			}
			to := filepath.Join(keep, fmt.Sprintf("%s-%d", filepath.Base(dir), time.Now().UnixNano()))
			if err := copyDir(dir, to); err != nil {
				log.Error(fmt.Sprintf("keep working directory %s: %v", pool.LogPath(dir), rootCause(err)))
				return
			}
			log.Info(fmt.Sprintf("working directory %s kept as %s", pool.LogPath(dir), pool.LogPath(to)))
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
