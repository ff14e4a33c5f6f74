package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"postern/internal/config"
	"postern/internal/stamp"
)

// exitTrouble is the status of a command that could not do its work.
const exitTrouble = 1

// withStore opens the store for a command.
func (s *settings) withStore(stderr io.Writer, do func(*stamp.Dir) error) int {
	store, err := s.store()
	status := exitTrouble
	switch {
	case err != nil:
	case store == nil:
		err, status = fmt.Errorf("clientip-dir is not set"), config.ExitSettings
	default:
		err = do(store)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "%s: error: %v\n", programName, err)
		return status
	}
	return 0
}

// runExpire is "pop3-stamp expire".
func (s *settings) runExpire(stdout, stderr io.Writer) int {
	return s.withStore(stderr, func(store *stamp.Dir) error {
		age := s.Expire.Age
		if age <= 0 {
			age = 2 * s.ClientipMaxage
		}
		n := 0
		if err := store.Expire(context.Background(), age, func(netip.Addr) { n++ }); err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, "%d removed\n", n)
		return err
	})
}

// runTouch is "pop3-stamp touch".
func (s *settings) runTouch(_, stderr io.Writer) int {
	return s.withStore(stderr, func(store *stamp.Dir) error {
		addr, err := netip.ParseAddr(s.Touch.Client)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		return store.Touch(context.Background(), addr, s.Touch.Login, s.Touch.Server)
	})
}

// runRevoke is "pop3-stamp revoke".
func (s *settings) runRevoke(_, stderr io.Writer) int {
	return s.withStore(stderr, func(store *stamp.Dir) error {
		addr, err := netip.ParseAddr(s.Revoke.Client)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		return store.Remove(context.Background(), addr)
	})
}
