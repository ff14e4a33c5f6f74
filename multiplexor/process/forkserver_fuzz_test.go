package process

import (
	"log/slog"
	"math"
	"strings"
	"testing"

	"postern/internal/evloop"
	"postern/multiplexor/pool"
)

// FuzzForkServerLine: whatever a fork server says, each start that waits for it comes to
// one end.
func FuzzForkServerLine(f *testing.F) {
	f.Add("hello 1\nfailed 1 x\nfailed 2\n")
	f.Add("hello 1\nchild 1 1 0 1 2\n")
	f.Add("child 1 99999999999999999999 0 1 2\nhello 1\nhello 1\n")
	f.Fuzz(func(t *testing.T, said string) {
		loop, err := evloop.New()
		if err != nil {
			t.Fatal(err)
		}
		defer loop.Close()
		told := 0
		exec := func(_ pool.Owner, _ bool, done func(pool.Process, error)) { done(nil, errStopping) }
		fs := NewForkServers(loop, &Program{}, exec, noLog{}, false)
		// No process has this number, so that nothing is found, or ended, by mistake.
		s := &forkServer{forks: fs, pid: math.MaxInt32, made: make(chan newProcess, 1), sent: map[int]pendingStart{}}
		fs.next = s
		fs.servers[s] = true
		for range 2 {
			fs.Start(nil, false, func(pool.Process, error) { told++ })
		}
		for line := range strings.Lines(said) {
			if !s.down {
				s.line(strings.TrimSuffix(line, "\n"))
			}
		}
		if fs.servers[s] {
			fs.lost(s, "has ended")
		}
		fs.Stop()
		fs.ending.Wait()
		if told != 2 {
			t.Errorf("%q: %d of 2 starts came to an end", said, told)
		}
	})
}

// noLog is a log that nobody reads.
type noLog struct{}

func (noLog) Add(slog.Level, string)     {}
func (noLog) AddEach(slog.Level, string) {}
