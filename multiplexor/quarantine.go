package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postern/internal/privdrop"
)

// MIMEDefang's worker, and where its filters put what they keep, unless they say otherwise.
const (
	theirWorkerName    = "mimedefang.pl"
	originalQuarantine = "/var/spool/MD-Quarantine"
)

// quarantineLost says, for MIMEDefang's worker, why what its filters quarantine would be lost: they do not say so themselves.
// It is "" if all is well.
func (s *settings) quarantineLost(dir string) string {
	if filepath.Base(s.Worker) != theirWorkerName {
		return ""
	}
	look := func() error {
		if _, err := os.Stat(dir); err != nil {
			return err
		}
		if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("write to %s: %w", dir, err)
		}
		return nil
	}
	err := errors.New("no such user")
	if os.Geteuid() != 0 || s.User == "" {
		err = look()
	} else if account, lookup := privdrop.Lookup(s.User); lookup == nil {
		err = privdrop.As(account, look)
	}
	if err != nil {
		return fmt.Sprintf("what filters quarantine will be lost, unless they name another directory for it: %v", err)
	}
	return ""
}
