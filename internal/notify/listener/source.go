package listener

import (
	"fmt"
	"path/filepath"
	"strings"

	"postern/internal/sockspec"
)

// ParseSource reads what the tools take for a daemon: a socket specification,
// or NAME=SPECIFICATION. Without a name the source is called after the socket:
// "multiplexor" for /run/postern/multiplexor-notify.sock.
func ParseSource(s string) (Source, error) {
	name, spec := "", s
	if n, rest, ok := strings.Cut(s, "="); ok && sourceName(n) {
		name, spec = n, rest
	}
	sp, err := sockspec.Parse(spec)
	if err != nil {
		return Source{}, fmt.Errorf("socket %q: %w", spec, err)
	}
	if name == "" {
		name = spec
		if sp.IsUnix() {
			name = strings.TrimSuffix(filepath.Base(sp.Address), ".sock")
			name = strings.TrimSuffix(name, "-notify")
		}
	}
	return Source{Name: name, Dial: sp.Dial}, nil
}

// sourceName reports whether s can be a name; a path or a specification with an
// equals sign in it is none.
func sourceName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}
