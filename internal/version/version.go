// Package version says which version of the suite a program is of.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version that packages are built as, set by the linker.
var release string

// Line returns what a program's --version prints: its name, the version and, if the
// go command recorded it, the commit, and the Go release.
func Line(program string) string {
	v, commit := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	if release != "" {
		v = release
	}
	return fmt.Sprintf("%s (postern) %s%s %s", program, v, commit, runtime.Version())
}
