package pool

import (
	"fmt"
	"strings"
	"testing"
)

// fakeStatistics keeps the lines.
type fakeStatistics struct{ lines []string }

func (s *fakeStatistics) Add(event string, worker, running, busy int, extra string) {
	line := fmt.Sprintf("%s worker=%d nworkers=%d nbusy=%d %s", event, worker, running, busy, extra)
	s.lines = append(s.lines, strings.TrimSpace(line)+"\n")
}

// TestStatistics looks at the lines of a scan and a retirement.
func TestStatistics(t *testing.T) {
	b := newBench(t, func(l *Limits) { l.MaxRequests, l.QueueSize, l.Max = 3, 5, 1 })
	stats := &fakeStatistics{}
	b.p.Statistics = stats
	b.ask("scan q d")
	b.ask("waits") // is served at once: the original forgot the EndFilter line then
	b.reply(0, "ok\n")
	b.reply(0, "ok\n")
	b.ask("last")
	b.reply(0, "ok\n")
	b.reap()
	b.ask("next%0A one")
	want := `StartWorker worker=0 nworkers=1 nbusy=0 reason="About to perform scan"
StartFilter worker=0 nworkers=1 nbusy=1
EndFilter worker=0 nworkers=1 nbusy=1 numRequests=1
KillWorker worker=0 nworkers=1 nbusy=0 req=3 age=0 reason="Worker has processed 3 requests"
ReapWorker worker=0 nworkers=0 nbusy=0
StartWorker worker=0 nworkers=1 nbusy=0 reason="About to execute command 'next%0A one'"
`
	if got := strings.Join(stats.lines, ""); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

// TestStatisticsOfARetriedScan: a scan that another worker gets, because the first
// one has gone, begins once and ends once.
func TestStatisticsOfARetriedScan(t *testing.T) {
	for name, tt := range map[string]struct {
		deaf int // workers that have gone
		want string
	}{
		"the other one does it":       {1, "KillWorker worker=0\nStartFilter worker=1\nEndFilter worker=1\n"},
		"the other one, too, is gone": {2, "KillWorker worker=0\nStartFilter worker=1\nKillWorker worker=1\nEndFilter worker=1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.warm(2)
			stats := &fakeStatistics{}
			b.p.Statistics = stats
			for n := range tt.deaf {
				b.child(n).deaf = true
			}
			b.ask("scan q d")
			if tt.deaf == 1 {
				b.reply(1, "ok\n")
			}
			got := ""
			for _, line := range stats.lines {
				got += strings.Join(strings.Fields(line)[:2], " ") + "\n"
			}
			if got != tt.want {
				t.Errorf("got:\n%swant:\n%s", got, tt.want)
			}
		})
	}
}
