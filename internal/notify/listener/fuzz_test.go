package listener

import (
	"strings"
	"testing"

	"postern/internal/notify"
)

// FuzzEvent reads lines as a client does. What it takes for a message must be
// the line again when written.
func FuzzEvent(f *testing.F) {
	for _, s := range []string{"Z", "F 3", "S 0 StateChange Idle -> Busy", "12 1795327812.000001 S 3 x", "=12 1795327812.000001 F 0",
		"*LOST 3", "*LIVE 12", "*EXT 12 99", "*ERR too slow", "*OK", "", "oop qid", "1 2 3", "S \xff\x1b]0;x\a"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, line string, ext bool) {
		e, err := parseLine(line, ext)
		if err != nil {
			if !strings.HasPrefix(line, notify.LineErr) {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		switch e.Kind {
		case Happened, State:
			if e.Letter < 'A' || e.Letter > 'Z' {
				t.Fatalf("%q: letter %q", line, e.Letter)
			}
			// "F " is read as "F": the original never sends either.
			if !strings.HasSuffix(line, e.Line()) && !strings.HasSuffix(line, e.Line()+" ") {
				t.Fatalf("%q became %q", line, e.Line())
			}
		case Lost, Live, Up:
			if line[0] != '*' {
				t.Fatalf("%q is taken for control", line)
			}
		}
		_, _ = e.Worker(), e.Free()
		if _, to, ok := e.StateChange(); ok && !strings.HasSuffix(line, " -> "+to) {
			t.Fatalf("%q: the worker is %s now", line, to)
		}
	})
}
