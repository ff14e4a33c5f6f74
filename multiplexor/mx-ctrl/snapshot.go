package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/internal/mxproto"
)

// recentSeconds is over how long top takes its averages: the shortest time that
// load1 knows.
const recentSeconds = 10

// snapshot is what top shows: replies asked for one after the other.
type snapshot struct {
	at      time.Time
	status  mxproto.Status
	workers []mxproto.Worker
	load    mxproto.RecentLoad
	usage   map[int]mxproto.Usage // of some slots; nil if the multiplexor does not tell
}

// take asks for a snapshot with requests that the original multiplexor knows,
// too, also on the socket for status requests only.
func (c *client) take(ctx context.Context) (*snapshot, error) {
	s := new(snapshot)
	for _, part := range []struct {
		request string
		read    func(reply string) (ok bool)
	}{
		{mxproto.VerbStatus, func(reply string) (ok bool) { s.status, ok = mxproto.ParseStatus(reply); return ok }},
		{mxproto.VerbWorkers, func(reply string) (ok bool) { s.workers, ok = mxproto.ParseWorkers(reply); return ok }},
		{fmt.Sprintf("%s %d", mxproto.VerbLoad1, recentSeconds), func(reply string) (ok bool) { s.load, ok = mxproto.ParseRecentLoad(reply); return ok }},
	} {
		reply, err := c.ask(ctx, part.request)
		if err != nil {
			return nil, err
		}
		if reply == "" {
			return nil, fmt.Errorf("%s: %w", part.request, mxproto.ErrNoReply)
		}
		if !part.read(reply) {
			return nil, &badReply{part.request, reply}
		}
	}
	c.takeUsage(ctx, s)
	s.at = time.Now()
	return s, nil
}

// badReply is the error of a reply that is not in the form of its request.
type badReply struct{ request, reply string }

func (e *badReply) Error() string {
	return fmt.Sprintf("%s: answer not understood: %.200s", e.request, safeLine(strings.TrimSuffix(e.reply, "\n")))
}
