package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/internal/mxproto"
)

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
		if w.PID == "" || len(s.usage) >= c.maxUsages {
			continue
		}
		reply, err := c.ask(ctx, fmt.Sprintf("%s %d", mxproto.VerbWorkerInfo, w.Slot))
		if err != nil {
			return // what there is will do
		}
		u, ok := mxproto.ParseUsage(reply, w.PID)
		switch {
		case !ok && len(s.usage) == 0 && !strings.Contains(reply, "\nResidentKB ") && !strings.Contains(reply, "\nPID -1\n"):
			c.noUsage = true
			return
		case ok:
			if s.usage == nil {
				s.usage = make(map[int]mxproto.Usage)
			}
			s.usage[w.Slot] = u
		}
	}
}

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
