package watch

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/printable"
)

// A Pool is what a multiplexor says of itself when it is asked.
type Pool struct {
	mxproto.Status
	Busy, Idle, Stopped, Killed int
	Health                      *mxproto.Health // nil if the multiplexor is the original
	Workers                     []Worker
}

// maxStatus bounds a reply of a multiplexor, in bytes.
const maxStatus = 1 << 20

// askPool asks a multiplexor for its status, with requests that the original knows too, also on the socket for
// status requests only.
func askPool(ctx context.Context, t *Target, now time.Time) (*Pool, error) {
	client := mxproto.Client{
		Dial:     func(ctx context.Context) (net.Conn, error) { return t.Status.Dial(ctx) },
		MaxReply: maxStatus,
	}
	defer client.Close()
	p := &Pool{}
	for _, part := range []struct {
		request string
		read    func(reply string) bool
	}{
		{mxproto.VerbStatus, p.readStatus},
		{mxproto.VerbWorkers, func(reply string) bool { return p.readWorkers(reply, now) }},
		{mxproto.VerbVersion, func(reply string) bool {
			if strings.HasPrefix(reply, "postern") { // the original would give the next question to a worker
				p.Health = &mxproto.Health{}
			}
			return true
		}},
	} {
		reply, err := client.Ask(ctx, part.request)
		if err != nil {
			return nil, err
		}
		if !part.read(reply) {
			return nil, fmt.Errorf("%s: answer not understood: %.80q", part.request, reply)
		}
	}
	if p.Health == nil {
		return p, nil
	}
	reply, err := client.Ask(ctx, mxproto.VerbHealth)
	if err != nil {
		return nil, err
	}
	if health, ok := mxproto.ParseHealth(reply); ok {
		p.Health = &health
	}
	return p, nil
}

func (p *Pool) readStatus(reply string) (ok bool) {
	p.Status, ok = mxproto.ParseStatus(reply)
	p.Busy, p.Idle = strings.Count(p.Letters, "B"), strings.Count(p.Letters, "I")
	p.Stopped, p.Killed = strings.Count(p.Letters, "S"), strings.Count(p.Letters, "K")
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
