package gate

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/mxproto"
	"postern/internal/notify"
	"postern/internal/smtp"
)

// Workers is shut while the multiplexor could neither start a request at once nor queue it.
//
// Whether a worker is free is known from the multiplexor's events when the proxy listens to them, else
// it is asked. Whether the queue has room is always asked, but only while no worker is free.
type Workers struct {
	ask func(ctx context.Context, request string) (string, error) // nil: workers do not matter
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	heard  bool // free is what events said last
	free   int
	read   time.Time
	shut   bool
	failed bool
}

// Event takes a message of the multiplexor: F with the number of free workers, Z when none is free, Y when
// one is again.
func (g *Workers) Event(letter byte, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch letter {
	case notify.LetterFree:
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil {
			g.free, g.heard = n, true
		}
	case notify.LetterSome:
		g.free, g.heard = max(g.free, 1), true
	case notify.LetterNone:
		g.free, g.heard = 0, true
	}
}

// Lost forgets what events said: the connection to the multiplexor is gone.
func (g *Workers) Lost() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = false
}

// Name returns the gate's name.
func (g *Workers) Name() string { return NameWorkers }

// Check refuses everybody while a message could not be filtered.
func (g *Workers) Check(ctx context.Context, _ Client) *smtp.Reply {
	if g.ask == nil || !g.closed(ctx) {
		return nil
	}
	return shut(421, "4.3.2", "No filter is free, try again later")
}

// closed reports whether the gate is shut. A multiplexor that does not answer shuts it: it would not
// answer the session either.
func (g *Workers) closed(ctx context.Context) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.heard && g.free > 0 {
		g.shut = false
		return false
	}
	now := g.now()
	if !g.read.IsZero() && now.Sub(g.read) < readingAge {
		return g.shut
	}
	shut, err := g.full(ctx)
	g.read = g.now() // sessions that waited for this answer take it, too
	if failed := err != nil; failed != g.failed {
		g.failed = failed
		if failed {
			g.log.Error("multiplexor does not answer", "error", err)
		} else {
			g.log.Info("multiplexor answers again")
		}
	}
	g.shut = shut || err != nil
	return g.shut
}

// full asks the multiplexor.
func (g *Workers) full(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := g.ask(ctx, mxproto.VerbFree)
	if err != nil {
		return false, err
	}
	free, err := mxproto.ParseFree(reply)
	if err != nil || free > 0 {
		return false, err
	}
	if reply, err = g.ask(ctx, mxproto.VerbStatus); err != nil {
		return false, err
	}
	return parseQueueFull(reply)
}

// parseQueueFull reads a status reply: LETTERS MSGS ACTIVATIONS QUEUE_SIZE QUEUED UPTIME.
func parseQueueFull(reply string) (bool, error) {
	words := strings.Fields(reply)
	if len(words) < 5 {
		return false, fmt.Errorf("status reply %.100q is not understood", reply)
	}
	size, err1 := strconv.Atoi(words[3])
	queued, err2 := strconv.Atoi(words[4])
	if err1 != nil || err2 != nil {
		return false, fmt.Errorf("status reply %.100q is not understood", reply)
	}
	return queued >= size, nil
}
