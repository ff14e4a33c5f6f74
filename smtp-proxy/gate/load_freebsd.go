package gate

import (
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"postern/internal/namedfile"
)

// loadavg returns what stands in the file, or would if it were there: Linux's is the default.
func loadavg(file string) ([]byte, error) {
	if file != "/proc/loadavg" {
		return namedfile.Head(file, 256)
	}
	// struct loadavg of sys/resource.h: three fixed-point numbers, and what is 1 among them, aligned
	b, err := unix.SysctlRaw("vm.loadavg")
	if err == nil && len(b) < 24 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("vm.loadavg: %w", err)
	}
	one := float64(binary.NativeEndian.Uint64(b[16:]))
	value := func(i int) float64 { return float64(binary.NativeEndian.Uint32(b[4*i:])) / one }
	return fmt.Appendf(nil, "%f %f %f", value(0), value(1), value(2)), nil
}
