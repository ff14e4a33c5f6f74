package privdrop

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// ErrRoot is the error of a user setting that would leave the process root.
var ErrRoot = errors.New("refusing to run as root (--allow-root would allow it)")

// Drop makes the process the user that the text names (see Lookup): groups, group,
// user, in this order and on all threads. Then it proves that no thread kept
// anything of root and that there is no way back. After an error of Drop the
// process is in no state to go on; it must end.
//
// A process that was not started as root stays what it is, which is proved as
// well. The user root, or one with a group of root, is an error, unless allowRoot;
// then the process stays root.
func Drop(text string, allowRoot bool) error {
	if os.Geteuid() != 0 {
		return verify(current(), idCaps)
	}
	a, err := Lookup(text)
	if err != nil {
		return err
	}
	if a.IsRoot() {
		if !allowRoot {
			return fmt.Errorf("user %s: %w", a, ErrRoot)
		}
		if a.UID == 0 {
			return nil
		}
	}
	return Become(a)
}

// Become sets the ids of all threads to the account and verifies them: that
// is Drop without the rules about root.
func Become(a Account) error {
	if err := setgroups(a); err != nil {
		return fmt.Errorf("set groups of user %s: %w", a, err)
	}
	if err := setresgid(a.GID, a.GID, a.GID); err != nil {
		return fmt.Errorf("set group of user %s: %w", a, err)
	}
	if err := setresuid(a.UID, a.UID, a.UID); err != nil {
		return fmt.Errorf("set user %s: %w", a, err)
	}
	return verify(a, allCaps)
}

// current is the account that the process has now.
func current() Account {
	a := Account{UID: os.Getuid(), GID: os.Getgid()}
	groups, err := os.Getgroups()
	if err == nil {
		a.Groups = groups
	}
	return a
}

// verify proves that all threads have the real, effective and saved ids and the
// groups of the account and none of the forbidden capabilities, and that becoming
// root fails.
func verify(a Account, forbidden uint64) error {
	if a.UID == 0 {
		forbidden = 0
	}
	if err := verifyThreads(a, forbidden); err != nil {
		return fmt.Errorf("privileges of user %s: %w", a, err)
	}
	if a.UID == 0 {
		return nil
	}
	// The kernel itself is asked, for all threads; its yes is our error.
	if err := setresuid(-1, 0, -1); err == nil {
		return fmt.Errorf("privileges of user %s: could become root again", a)
	}
	if a.GID == 0 || slices.Contains(a.Groups, 0) {
		return nil // not started as root, or allowed
	}
	if err := setresgid(-1, 0, -1); err == nil {
		return fmt.Errorf("privileges of user %s: could get the group of root again", a)
	}
	return nil
}
