package main

import (
	"bufio"
	"io"
	"strings"
)

// stages is what those that run beside the tests leave for the end.
type stages struct {
	failed, notes []string
	ended         bool // the last of them has
}

// lastStage is the line with which they end.
const lastStage = "check: all have ended"

// readStages shows what they write, whole lines at a time.
func readStages(from io.Reader, shown io.Writer) (s stages) {
	for r := bufio.NewReader(from); ; {
		line, err := r.ReadString('\n')
		if name, ok := strings.CutPrefix(line, "FAILED: "); ok {
			s.failed = append(s.failed, strings.TrimSpace(name))
		} else if text, ok := strings.CutPrefix(line, "Note: "); ok {
			s.notes = append(s.notes, strings.TrimSpace(text))
		}
		s.ended = s.ended || strings.TrimSpace(line) == lastStage
		io.WriteString(shown, line)
		if err != nil {
			return s
		}
	}
}
