package listener

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// A Follower listens to a daemon for as long as it is wanted. After a lost
// connection it connects again, with growing pauses, and asks for what it has
// missed meanwhile; in the extended form it misses nothing that the daemon still
// has, and gets a new snapshot.
type Follower struct {
	Source   Source
	Interest Interest
	Once     bool // a lost connection, or one that cannot be made, is the end
}

// Pauses before a new connection. Each is cut by a random part of up to half,
// so that many listeners of one daemon do not come back at the same moment.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	steadyTime = 10 * time.Second // a connection that held so long was a good one
)

// ErrLost is the end of a Follower that does not connect again.
var ErrLost = errors.New("connection lost")

// Follow passes each event to emit, in order, until emit fails, ctx ends or,
// where Once is set, the connection is lost: then the error wraps ErrLost. It
// also ends with what cannot be helped by trying again: a *ServerError other
// than "too slow", and an error that wraps ErrProtocol.
//
// Events of kind Down come before each pause, once until there is a connection
// again; every connection begins with one of kind Up.
func (f *Follower) Follow(ctx context.Context, emit func(Event) error) error {
	in := f.Interest
	down := false
	pause := firstPause
	for {
		began := time.Now()
		err := f.listen(ctx, &in, func(e Event) error {
			down = down && e.Kind != Up
			return emit(e)
		})
		var stop stopError
		var server *ServerError
		switch {
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrProtocol), errors.As(err, &server) && (f.Once || !server.TooSlow()):
			return err
		case f.Once:
			return lostError{err}
		}
		if !down {
			down = true
			if err := emit(Event{Kind: Down, Source: f.Source.Name, Time: time.Now(), Err: err}); err != nil {
				return err
			}
		}
		if time.Since(began) > steadyTime {
			pause = firstPause
		}
		if !sleep(ctx, pause-rand.N(pause/2)) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastPause)
	}
}

// listen follows one connection. in is kept so that the next connection goes
// on where this one ends.
func (f *Follower) listen(ctx context.Context, in *Interest, emit func(Event) error) error {
	c, err := Connect(ctx, f.Source, *in)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		e, err := c.Next(ctx)
		if err != nil {
			return err
		}
		switch {
		case e.Kind == Up && e.Extended:
			switch {
			case !in.Replay:
				in.Since = e.Seq
			case in.Run != 0 && in.Run != e.Run, in.Since > e.Seq:
				in.Since = 0 // the number belonged to another run
			}
			in.Replay, in.Run = true, e.Run
		case e.Kind == Happened || e.Kind == Live:
			in.Since = max(in.Since, e.Seq)
		}
		if err := emit(e); err != nil {
			return stopError{err}
		}
	}
}

// A stopError carries the error of emit past the rules for lost connections.
type stopError struct{ err error }

func (e stopError) Error() string { return e.err.Error() }

type lostError struct{ err error }

func (e lostError) Error() string        { return ErrLost.Error() + ": " + e.err.Error() }
func (e lostError) Unwrap() error        { return e.err }
func (e lostError) Is(target error) bool { return target == ErrLost }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Merge follows several daemons at once and passes the events of all to emit,
// one at a time. It ends with the first of them that ends, and waits for the
// others.
func Merge(ctx context.Context, followers []*Follower, emit func(Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var wg sync.WaitGroup
	ended := make(chan error, len(followers))
	for _, f := range followers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ended <- f.Follow(ctx, func(e Event) error {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return emit(e)
			})
		}()
	}
	err := <-ended
	cancel(err)
	wg.Wait()
	return err
}
