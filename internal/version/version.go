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
	commit := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return fmt.Sprintf("%s (postern) %s%s %s", program, Number(), commit, runtime.Version())
}

// Number returns the version alone: that of the package, or of the module as the go command recorded it.
func Number() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
