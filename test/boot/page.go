package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// blocks gives the literal blocks below a heading of a manual page, as a reader copies them.
func (s *site) blocks(page, heading string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(s.root, "man", page))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(text), heading+"\n")
	for _, next := range []string{"\n.Sh ", "\n.Ss "} {
		rest, _, _ = strings.Cut(rest, next)
	}
	rest += "\n"
	var found []string
	for {
		_, after, more := strings.Cut(rest, ".Bd -literal -offset indent\n")
		if !more {
			break
		}
		block, after, _ := strings.Cut(after, ".Ed\n")
		found = append(found, strings.NewReplacer(`\e`, `\`, `\&`, "").Replace(block))
		rest = after
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no blocks below %q", page, heading)
	}
	return found, nil
}
