package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"postern/internal/config"
	"postern/internal/privdrop"
)

// checkAll is --check. It returns the exit status.
func (s *settings) checkAll(name string, result *config.Result) int {
	if err := result.Print(os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: print settings: %v\n", name, err)
		return 1
	}
	if err := s.check(); err != nil && !s.likeOriginal() {
		fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
		return config.ExitSettings
	}
	if text := s.quarantineLost(originalQuarantine); text != "" && !s.likeOriginal() {
		fmt.Fprintf(os.Stderr, "%s: warning: %s\n", name, text)
	}
	return s.checkDirectories(name)
}

// check is what --check sees beyond the values of settings. It changes nothing.
func (s *settings) check() error {
	if s.tooFew {
		return &config.Error{Key: "min-workers", Err: errors.New("more than max-workers")}
	}
	taken := map[string]string{}
	for _, r := range s.listeners(0) {
		for _, spec := range r.Specs {
			if other := taken[spec]; other != "" {
				return &config.Error{Key: r.Name, Err: fmt.Errorf("%s is a socket already, for %s", spec, other)}
			}
			taken[spec] = r.Name
		}
	}
	st, err := os.Stat(s.Worker)
	switch {
	case err != nil:
		return &config.Error{Key: "worker", Err: err}
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return &config.Error{Key: "worker", Err: fmt.Errorf("%s is no program", s.Worker)}
	}
	if err := s.checkSpool(); err != nil {
		return &config.Error{Key: "spool", Err: err}
	}
	return nil
}

// checkSpool looks whether the account that will run may enter the spool directory.
func (s *settings) checkSpool() error {
	st, err := os.Stat(s.Spool)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no directory", s.Spool)
	}
	if os.Geteuid() == 0 && s.User == "" {
		return nil // nobody knows yet who will run
	}
	account := privdrop.Account{UID: os.Geteuid(), GID: os.Getegid()}
	if account.Groups, err = os.Getgroups(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if account, err = privdrop.Lookup(s.User); err != nil {
			return &config.Error{Key: "user", Err: err}
		}
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	bit := os.FileMode(0o001)
	switch {
	case !ok:
		return fmt.Errorf("%s has no owner", s.Spool)
	case int(owner.Uid) == account.UID:
		bit = 0o100
	case int(owner.Gid) == account.GID || slices.Contains(account.Groups, int(owner.Gid)):
		bit = 0o010
	}
	if st.Mode()&bit == 0 {
		return fmt.Errorf("%s belongs to user %d, and user %d may not enter it", s.Spool, owner.Uid, account.UID)
	}
	return nil
}
