package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// usage is what the process of a worker uses.
type usage struct {
	memory int64 // KiB
	cpu    time.Duration
}

// viewUsages bounds for how many workers the view asks what they use: a request each,
// and a screen does not show many more.
const viewUsages = 64

// takeUsage asks what the processes of the workers use, the first ones of the view
// first. A multiplexor that does not tell, as the original, is not asked again.
func (c *client) takeUsage(ctx context.Context, s *snapshot) {
	if c.noUsage {
		return
	}
	for _, w := range inOrder(s.workers) {
		if w.pid == "" || len(s.usage) >= c.maxUsages {
			continue
		}
		reply, err := c.ask(ctx, fmt.Sprintf("workerinfo %d", w.slot))
		if err != nil {
			return // what there is will do
		}
		u, ok := parseUsage(reply, w.pid)
		switch {
		case !ok && len(s.usage) == 0 && !strings.Contains(reply, "\nResidentKB ") && !strings.Contains(reply, "\nPID -1\n"):
			c.noUsage = true
			return
		case ok:
			if s.usage == nil {
				s.usage = make(map[int]usage)
			}
			s.usage[w.slot] = u
		}
	}
}

// parseUsage reads the end of a reply to workerinfo, which is that of the process
// pid or of no use.
func parseUsage(reply, pid string) (u usage, ok bool) {
	fields := map[string]string{}
	for line := range strings.Lines(reply) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		fields[name] = value
	}
	memory, err1 := strconv.ParseInt(fields["ResidentKB"], 10, 64)
	ms, err2 := strconv.ParseInt(fields["CPUMilliseconds"], 10, 64)
	if err1 != nil || err2 != nil || fields["PID"] != pid || memory < 0 || ms < 0 || ms > maxCPU {
		return usage{}, false
	}
	return usage{memory, time.Duration(ms) * time.Millisecond}, true
}

// maxCPU is more milliseconds than any process has run for.
const maxCPU = 1 << 42

// size words a number of KiB in at most six columns.
func size(kib int64) string {
	switch {
	case kib < 1000:
		return fmt.Sprintf("%dK", kib)
	case kib < 1000<<10:
		return fmt.Sprintf("%d.%dM", kib>>10, kib&(1<<10-1)*10>>10)
	case kib < 1000<<20:
		return fmt.Sprintf("%d.%dG", kib>>20, kib&(1<<20-1)*10>>20)
	}
	return ">999G"
}

// cpuTime words a processor time in at most six columns.
func cpuTime(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.2fs", d.Truncate(10*time.Millisecond).Seconds())
	}
	return age(int64(d / time.Second))
}
