//go:build linux && (386 || arm)

package privdrop

import "golang.org/x/sys/unix"

// The calls that take ids of 32 bits; those without a number take 16.
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresgid = unix.SYS_SETRESGID32
	sysSetresuid = unix.SYS_SETRESUID32
)
