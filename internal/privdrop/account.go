// Package privdrop gives up root for good: the whole process, all its threads,
// becomes the configured user, and that is proved before anything else is done.
package privdrop

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// defaultGID is the group of a user given by a number that the user database
// does not know: nogroup.
const defaultGID = 65534

// Account is the user and the groups of a process.
type Account struct {
	Name   string // as the user database has it; "" if it has none
	UID    int
	GID    int
	Groups []int // supplementary groups, as initgroups(3) would set them; GID is one of them
}

// IsRoot reports whether the account has the user id or any group id of root.
func (a Account) IsRoot() bool {
	if a.UID == 0 || a.GID == 0 {
		return true
	}
	for _, gid := range a.Groups {
		if gid == 0 {
			return true
		}
	}
	return false
}

// String gives name and numbers, for messages.
func (a Account) String() string {
	name := a.Name
	if name == "" {
		name = "-"
	}
	return fmt.Sprintf("%s (%d.%d)", name, uint32(a.UID), uint32(a.GID))
}

// Lookup reads a user setting: NAME, UID, UID.GID or NAME:GROUP. The groups of
// the first and last form are those of the user database. A UID that it does not
// know gets the group nogroup. A name that is not there is an error.
func Lookup(text string) (Account, error) {
	if text == "" {
		return Account{}, errors.New("user is empty")
	}
	if name, group, ok := strings.Cut(text, ":"); ok {
		return lookupWithGroup(name, group)
	}
	if uid, gid, ok := strings.Cut(text, "."); ok && isNumber(uid) {
		return numbers(text, uid, gid)
	}
	if isNumber(text) {
		if _, err := id(text); err != nil { // the C library would cut it to 32 bits
			return Account{}, fmt.Errorf("user %q: %w", text, err)
		}
		u, err := user.LookupId(text)
		var unknown user.UnknownUserIdError
		if errors.As(err, &unknown) {
			return numbers(text, text, strconv.Itoa(defaultGID))
		}
		return account(text, u, err)
	}
	u, err := user.Lookup(text)
	return account(text, u, err)
}

func lookupWithGroup(name, group string) (Account, error) {
	if name == "" || group == "" {
		return Account{}, fmt.Errorf("user %q: want NAME:GROUP", name+":"+group)
	}
	a, err := Lookup(name)
	if err != nil {
		return Account{}, err
	}
	gid := group
	if !isNumber(group) {
		g, err := user.LookupGroup(group)
		if err != nil {
			return Account{}, fmt.Errorf("group %q: %w", group, err)
		}
		gid = g.Gid
	}
	old := a.GID
	if a.GID, err = id(gid); err != nil {
		return Account{}, fmt.Errorf("group %q: %w", group, err)
	}
	for i, g := range a.Groups {
		if g == old {
			a.Groups = append(a.Groups[:i:i], a.Groups[i+1:]...)
			break
		}
	}
	a.Groups = append(a.Groups, a.GID)
	return a, nil
}

func account(text string, u *user.User, err error) (Account, error) {
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", text, err)
	}
	a, err := numbers(text, u.Uid, u.Gid)
	if err != nil {
		return Account{}, err
	}
	a.Name = u.Username
	groups, err := u.GroupIds()
	if err != nil {
		return Account{}, fmt.Errorf("groups of user %q: %w", text, err)
	}
	for _, g := range groups {
		gid, err := id(g)
		if err != nil {
			return Account{}, fmt.Errorf("groups of user %q: %w", text, err)
		}
		if gid != a.GID {
			a.Groups = append(a.Groups, gid)
		}
	}
	return a, nil
}

// numbers makes an account that is in no group but its own.
func numbers(text, uid, gid string) (Account, error) {
	u, err := id(uid)
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", text, err)
	}
	g, err := id(gid)
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", text, err)
	}
	return Account{UID: u, GID: g, Groups: []int{g}}, nil
}

// id reads a user or group id. The highest number means "leave as it is" to
// setresuid(2) and is no id.
func id(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, fmt.Errorf("%q is no user or group id", text)
	}
	return int(n), nil
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
