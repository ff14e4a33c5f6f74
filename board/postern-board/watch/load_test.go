package watch

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// fake is a daemon that sends the same lines again and again, as fast as they are read.
type fake struct {
	l     net.Listener
	start chan int // how many times
}

// request is what a proxy says of one client and its message.
const request = "C s%d 192.0.2.1|S 0 StateChange Idle -> Busy|F 2|S 0 scan q1|S 0 StateChange Busy -> Idle|F 3|A s%d q1 1000 1|J s%d 554|T s%d 451|D s%d 192.0.2.1 1"

const perRequest = 10 // events

// newFakes makes so many daemons.
func newFakes(t testing.TB, n int) (fakes []*fake, targets []Target) {
	t.Helper()
	dir := testenv.ShortDir(t)
	for i := range n {
		path := filepath.Join(dir, fmt.Sprint(i))
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{l: l, start: make(chan int, 1)}
		played := testenv.Go(t, "a fake daemon", f.play)
		t.Cleanup(func() {
			close(f.start)
			l.Close()
			played.Wait()
		})
		fakes = append(fakes, f)
		targets = append(targets, Target{Gateway: fmt.Sprintf("gw%d", i), Kind: Proxy, Notify: unix(path)})
	}
	return fakes, targets
}

// play serves one listener.
func (f *fake) play() error {
	c, err := f.l.Accept()
	if err != nil {
		return nil
	}
	defer c.Close()
	testenv.Patient(c)
	if _, err := io.WriteString(c, "*OK\n"); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 100)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "*EXT 0 1\n*LIVE 0\n"); err != nil {
		return err
	}
	seq := 0
	for times := range f.start {
		for times > 0 {
			var b strings.Builder
			for range min(times, 100) {
				for _, text := range strings.Split(strings.ReplaceAll(request, "%d", fmt.Sprint(seq)), "|") {
					seq++
					fmt.Fprintf(&b, "%d 1795327901.000213 %s\n", seq, text)
				}
			}
			times -= 100
			testenv.Patient(c)
			if _, err := io.WriteString(c, b.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// A rack of gateways, each of which says much at once: all of it is counted.
func TestHundredDaemons(t *testing.T) {
	const daemons, requests = 100, 100
	fakes, targets := newFakes(t, daemons)
	b := running(t, targets, 5000)
	for _, f := range fakes {
		f.start <- requests
	}
	testenv.Eventually(t, "all events", func() bool {
		for _, v := range b.Views() {
			if v.Total != requests*perRequest {
				return false
			}
		}
		return true
	})
	for _, v := range b.Views() {
		if v.Lost != 0 || v.Free != 3 || !v.Reachable || len(v.Problems) > 0 {
			t.Fatalf("%s: %+v", v.Gateway, v)
		}
	}
	for _, d := range b.daemons {
		counts := map[byte]uint64{}
		for place := range d.rates.n {
			for letter, n := range d.rates.n[place] {
				counts['A'+byte(letter)] += uint64(n)
			}
		}
		if counts['A'] != requests || counts['S'] != 3*requests || counts['F'] != 2*requests || len(d.clients) != 0 {
			t.Fatalf("%s: %v, %d sessions are open", d.target.Gateway, counts, len(d.clients))
		}
	}
	if got := len(b.Refusals(10000)); got != 5000 {
		t.Errorf("%d refusals are kept, want 5000", got)
	}
}

// BenchmarkEvents takes events of 100 daemons, which are made in the same process; with -cpu 1 it is the share of one
// processor.
func BenchmarkEvents(b *testing.B) {
	fakes, targets := newFakes(b, 100)
	board := running(b, targets, 100_000)
	testenv.Eventually(b, "all links", func() bool {
		for _, v := range board.Views() {
			if !v.Reachable {
				return false
			}
		}
		return true
	})
	before := board.Took()
	b.ReportAllocs()
	b.ResetTimer()
	each := b.N/len(fakes)/perRequest + 1
	for _, f := range fakes {
		f.start <- each
	}
	want := before + uint64(each*len(fakes)*perRequest)
	testenv.Eventually(b, "all events", func() bool { return board.Took() >= want })
	b.StopTimer()
	b.ReportMetric(float64(want-before)/b.Elapsed().Seconds(), "events/s")
}
