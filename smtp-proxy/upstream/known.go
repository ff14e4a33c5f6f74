package upstream

import (
	"context"
	"sync"
	"time"
)

// known is what was learned of the capabilities of the next hop.
type known struct {
	mu     sync.Mutex
	caps   Capabilities
	at     time.Time     // zero while nothing is known
	asking chan struct{} // nil unless somebody asks
	err    error         // of the last one who did
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type knownState uint8

const (
	knownNothing knownState = iota
	knownStale
	knownFresh
)

func (k *known) init() { k.ctx, k.cancel = context.WithCancel(context.Background()) }

func (k *known) stop() {
	k.cancel()
	k.wg.Wait()
}

func (k *known) learn(c Capabilities) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = time.Now()
	if !k.caps.equal(c) {
		k.caps = c
	}
}

func (k *known) get(now time.Time, fresh time.Duration) (Capabilities, knownState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.at.IsZero():
		return Capabilities{}, knownNothing
	case now.Sub(k.at) > fresh:
		return k.caps, knownStale
	}
	return k.caps, knownFresh
}

// ask runs probe, unless it runs already or the Set is closed. What it gives is closed when that is over.
// Nobody's patience ends a probe: with the first server out of reach it takes longer than a client waits.
func (k *known) ask(probe func(context.Context) error) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.askLocked(probe)
}

func (k *known) askLocked(probe func(context.Context) error) <-chan struct{} {
	if k.asking != nil {
		return k.asking
	}
	done := make(chan struct{})
	if k.ctx.Err() != nil {
		k.err = &Error{Reply: replyDown, Err: ErrClosed}
		close(done)
		return done
	}
	k.asking = done
	k.wg.Go(func() {
		err := probe(k.ctx)
		k.mu.Lock()
		k.asking, k.err = nil, err
		k.mu.Unlock()
		close(done)
	})
	return done
}

// wait gives what is known: when that is nothing it asks, or waits for the one who does.
func (k *known) wait(ctx context.Context, probe func(context.Context) error) (Capabilities, error) {
	k.mu.Lock()
	if !k.at.IsZero() { // since the caller looked
		defer k.mu.Unlock()
		return k.caps, nil
	}
	asked := k.askLocked(probe)
	k.mu.Unlock()
	select {
	case <-asked:
	case <-ctx.Done():
		return Capabilities{}, &Error{Reply: replyDown, Err: ctx.Err()}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at.IsZero() {
		return Capabilities{}, k.err
	}
	return k.caps, nil
}
