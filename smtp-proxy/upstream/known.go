package upstream

import (
	"context"
	"sync"
	"time"
)

// known is what was learned of the capabilities of the server behind.
type known struct {
	mu     sync.Mutex
	caps   Capabilities
	at     time.Time // zero while nothing is known
	asking chan struct{}
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

// background runs ask, unless somebody asks already or the Set is closed.
func (k *known) background(ask func(context.Context)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asking != nil || k.ctx.Err() != nil {
		return
	}
	done := make(chan struct{})
	k.asking = done
	k.wg.Add(1)
	go func() {
		defer k.wg.Done()
		ask(k.ctx)
		k.answered(done)
	}()
}

func (k *known) answered(done chan struct{}) {
	k.mu.Lock()
	k.asking = nil
	k.mu.Unlock()
	close(done)
}

// wait asks, or waits for the one who does; if that one gets no answer, the next one asks.
func (k *known) wait(ctx context.Context, ask func() (Capabilities, error)) (Capabilities, error) {
	for {
		k.mu.Lock()
		if !k.at.IsZero() {
			defer k.mu.Unlock()
			return k.caps, nil
		}
		other := k.asking
		if other == nil {
			done := make(chan struct{})
			k.asking = done
			k.mu.Unlock()
			defer k.answered(done)
			return ask()
		}
		k.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return Capabilities{}, &Error{Reply: replyDown, Err: ctx.Err()}
		}
	}
}
