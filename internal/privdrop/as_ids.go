//go:build linux && !386 && !arm

package privdrop

import "golang.org/x/sys/unix"

// The calls that take ids of 32 bits.
const (
	sysSetgroups = unix.SYS_SETGROUPS
	sysSetresgid = unix.SYS_SETRESGID
	sysSetresuid = unix.SYS_SETRESUID
)
