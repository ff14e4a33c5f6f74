package watch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/printable"
)

// A Pool is what a multiplexor says of itself when it is asked.
type Pool struct {
	mxproto.Status
	Busy, Idle, Stopped int
	Health              mxproto.Health // of one of ours
	Workers             []Worker
}

// askPool asks a multiplexor for its status, with requests that the original knows too, also on the socket for
// status requests only.
func askPool(ctx context.Context, t *Target, now time.Time) (*Pool, error) {
	client := mxproto.Client{Dial: t.Status.Dial}
	defer client.Close()
	p := &Pool{}
	for _, part := range []struct {
		request string
		read    func(reply string) bool
	}{
		{mxproto.VerbStatus, p.readStatus},
		{mxproto.VerbWorkers, func(reply string) bool { return p.readWorkers(reply, now) }},
	} {
		reply, err := client.Ask(ctx, part.request)
		if err != nil {
			return nil, err
		}
		if !part.read(reply) {
			return nil, fmt.Errorf("%s: answer not understood: %.80q", part.request, reply)
		}
	}
	var err error
	p.Health, _, err = mxproto.AskHealth(ctx, client.Ask)
	return p, err
}

func (p *Pool) readStatus(reply string) (ok bool) {
	p.Status, ok = mxproto.ParseStatus(reply)
	p.Busy, p.Idle, p.Stopped = strings.Count(p.Letters, "B"), strings.Count(p.Letters, "I"), strings.Count(p.Letters, "S")
	return ok
}

func (p *Pool) readWorkers(reply string, now time.Time) bool {
	workers, ok := mxproto.ParseWorkers(reply)
	for _, w := range workers[:min(len(workers), maxWorkers)] {
		p.Workers = append(p.Workers, Worker{
			Slot: w.Slot, State: mxproto.StateNames[w.State],
			Since: now.Add(-time.Duration(w.Ago) * time.Second),
			Tag:   printable.Text(short(w.Tag, maxTag)),
		})
	}
	return ok
}
