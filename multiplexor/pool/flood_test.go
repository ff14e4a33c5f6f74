package pool

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/logging"
)

// info is a log without debug lines, so one with limits.
type info struct{ textLines }

func (info) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// floodRate is that of the program.
var floodRate = logging.Rate{Kind: 200, Client: 200}

// floodMost is how many lines there may be in a second for what one kind of event makes the multiplexor say. A death has
// six kinds of lines; where each line begins with another queue id there are as many kinds as the limits tell apart.
var floodMost = 7 * floodRate.Kind

// letters returns a word for a number. Words are told apart by the limits of the log, numbers are not.
func letters(n int) string {
	return strings.Map(func(r rune) rune { return r - '0' + 'G' }, fmt.Sprintf("%07d", n))
}

// TestFloodOfEventsInTheLog: however often a second clients, messages and workers cause a line, a bounded number is
// written; the log says that there were more, and a line about something else is there.
func TestFloodOfEventsInTheLog(t *testing.T) {
	const seconds, each = 3, 3000
	scan := func(b *bench, n int) *fakeAsker { return b.ask("scan " + letters(n) + " /dir" + letters(n)) }
	die := func(b *bench) {
		if _, runs := b.p.workers[0].child.(*fakeChild); runs {
			b.finish(0, Exit{Signal: syscall.SIGSEGV, Rusage: &syscall.Rusage{}})
		}
	}
	for name, event := range map[string]func(b *bench, n int){
		"deaths": func(b *bench, n int) {
			b.warm(1)
			b.reply(0, "ok\n") // it has worked, so another is started at once
			scan(b, n)
			die(b)
		},
		"workers that never work": func(b *bench, n int) {
			scan(b, n)
			die(b)
		},
		"refused requests": func(b *bench, n int) { scan(b, n) },
		"workers that cannot be started": func(b *bench, n int) {
			b.broken = syscall.EAGAIN
			scan(b, n)
		},
		"poison": func(b *bench, n int) {
			const dir = " /poison"
			for range b.p.limits.PoisonLimit {
				if b.p.poison.deaths["/poison"] != nil && b.p.poison.deaths["/poison"].count >= b.p.limits.PoisonLimit {
					break
				}
				b.ask("scan x" + dir)
				die(b)
			}
			b.ask("scan " + letters(n) + dir)
		},
		"standard error": func(b *bench, n int) {
			if _, runs := b.p.workers[0].child.(*fakeChild); !runs {
				scan(b, n)
			}
			b.p.workers[0].GotStderr([]byte("the same\n"+letters(n)+"\n"), false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(l *Limits) { l.Min, l.Max, l.PoisonLimit, l.LogEvents, l.LogStderr = 0, 1, 2, true, true })
			var now atomic.Int64
			clock := func() time.Time { return time.Unix(1000, now.Load()) }
			b.log.Handler = logging.Limit(slog.New(info{textLines{out: &b.log.out}}), floodRate, clock).Handler()
			for second := range seconds {
				before := b.logged()
				for n := range each {
					event(b, second*each+n)
				}
				b.pass(time.Second)
				now.Add(int64(time.Second))
				if n := strings.Count(b.logged()[len(before):], "\n"); n > floodMost {
					t.Errorf("second %d: %d lines for %d events, want at most %d", second, n, each, floodMost)
				}
			}
			b.p.log.Add(slog.LevelInfo, "something else")
			log := b.logged()
			if !strings.Contains(log, "something else") {
				t.Error("a line about something else is not there")
			}
			if !strings.Contains(log, "lines were suppressed") && !strings.Contains(log, "lines not logged") {
				t.Error("nothing says that there were more lines")
			}
		})
	}
}
