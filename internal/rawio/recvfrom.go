//go:build !386

package rawio

import "syscall"

const sysRecvfrom = syscall.SYS_RECVFROM
