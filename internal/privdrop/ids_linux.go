package privdrop

import "syscall"

// The functions of package syscall act on all threads; Setgroups of
// golang.org/x/sys/unix acts on the calling one alone.

func setgroups(a Account) error                  { return syscall.Setgroups(a.Groups) }
func setresgid(real, effective, saved int) error { return syscall.Setresgid(real, effective, saved) }
func setresuid(real, effective, saved int) error { return syscall.Setresuid(real, effective, saved) }
