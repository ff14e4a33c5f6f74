package hub

import (
	"fmt"
	"testing"

	"postern/internal/notify"
)

// TestBridgeToAnOldView: the history goes on while a listener is brought up to date
// from a view of it. What the history has given up since then still stands in the
// view: it is not reported lost, and nothing is counted twice.
func TestBridgeToAnOldView(t *testing.T) {
	for _, replay := range []bool{false, true} {
		t.Run(fmt.Sprintf("replay=%v", replay), func(t *testing.T) {
			h := New(Options{})
			h.log.rest, h.log.most = 3*chunkSize, 6*chunkSize
			h.started, h.idle = true, false // somebody looks at chunks: none is used again
			publish := func(n int) {
				for i := range n {
					h.Publish(notify.Message{Letter: []byte("SFYZC")[i%5], Text: fmt.Sprint(i % 50)})
				}
			}
			publish(20000)
			d := &distributor{hub: h}
			d.look()
			l := &listener{hub: h, key: key{allLetters, true}, next: 1}
			if replay {
				d.replay(l, &subscription{interest: interest{letters: allLetters, extended: true, replay: true, since: 10}, from: d.view.next})
			}
			for calls := 0; l.next < d.view.first() && calls < 1000; calls++ {
				if calls == 1 {
					publish(20000)
				}
				d.bridge(l)
				if l.ending {
					t.Fatalf("closed: %s", l.unsent)
				}
			}
			if h.log.first() <= d.view.first() {
				t.Fatal("the history has given up nothing meanwhile: the test shows nothing")
			}
			if want := l.key.letters.count(&d.view.chunks[0].before); l.next != d.view.first() || l.seen != want {
				t.Errorf("at %d of %d, %d seen or lost, want %d", l.next, d.view.first(), l.seen, want)
			}
			if h.stats.Lost > 40000 {
				t.Errorf("%d lost", h.stats.Lost)
			}
		})
	}
}
