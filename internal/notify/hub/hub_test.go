package hub

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/testenv"
)

// serve starts a hub on a UNIX socket and returns a function that connects to
// it. small, if not 0, is the size of its history in chunks.
func serve(t testing.TB, opt Options, small int) (*Hub, func() *peer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "n")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := New(opt)
	if small > 0 {
		h.log.rest, h.log.most = small*chunkSize, 2*small*chunkSize
	}
	served := testenv.Go(t, "the hub", func() error { return h.Serve(l) })
	t.Cleanup(func() {
		h.Close()
		served.Wait()
	})
	return h, func() *peer {
		t.Helper()
		conn := testenv.Dial(t, "unix", path)
		return &peer{t, conn.(*net.UnixConn), bufio.NewReader(conn)}
	}
}

// A peer is a listener's end of a connection.
type peer struct {
	t    testing.TB
	conn *net.UnixConn
	r    *bufio.Reader
}

func (p *peer) send(s string) {
	p.t.Helper()
	if _, err := p.conn.Write([]byte(s)); err != nil {
		p.t.Fatalf("send %q: %v", s, err)
	}
}

func (p *peer) line() string {
	p.t.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read: %v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *peer) want(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		if got := p.line(); got != want {
			p.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// ask sends an interest line and waits until it is in effect.
func (p *peer) ask(h *Hub, line string) {
	p.t.Helper()
	h.mu.Lock()
	before := h.stats.Subscriptions
	h.mu.Unlock()
	p.send(line)
	until(p.t, "the subscription takes effect", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.stats.Subscriptions > before
	})
}

func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	testenv.Eventually(t, what, cond)
}

func msg(line string) notify.Message {
	m := notify.Message{Letter: line[0]}
	if len(line) > 2 {
		m.Text = line[2:]
	}
	return m
}

func publish(h *Hub, lines ...string) {
	for _, l := range lines {
		h.Publish(msg(l))
	}
}

func TestClassicListener(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	p := dial()
	p.want("*OK")
	publish(h, "Z") // before the interest: not sent
	p.ask(h, "?FZ\n")
	publish(h, "S 0 StateChange Idle -> Busy", "F 0", "Z", "Y", "F 1", "S 0 ping")
	p.want("F 0", "Z", "F 1")
	p.ask(h, "?\n")
	publish(h, "Z")
	p.ask(h, "?*\n")
	publish(h, "B", "U", "R", "S 3 x y")
	p.want("B", "U", "R", "S 3 x y")
}

func TestTwoLinesInOnePacket(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	p := dial()
	p.want("*OK")
	p.send("?*\n?Z+\n")
	p.line() // the acknowledgement: both lines have been read
	p.want("*LIVE 0")
	publish(h, "F 0", "Z")
	if got := p.line(); !strings.HasSuffix(got, " Z") {
		t.Errorf("got %q, want a Z: the last line wins", got)
	}
}

func TestTextCannotForgeLines(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	all, edges := dial(), dial()
	all.want("*OK")
	edges.want("*OK")
	all.ask(h, "?*\n")
	edges.ask(h, "?YZ\n")
	h.Publish(notify.Message{Letter: 'S', Text: "1 tag\nZ\r\nY\x00\x7f\xff"}, notify.Message{Letter: 'Y'})
	all.want("S 1 tag Z  Y  \xff", "Y")
	edges.want("Y")
}

func TestHalfClosedListener(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	p := dial()
	p.want("*OK")
	p.ask(h, "?YZ\n")
	if err := p.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	publish(h, "Z", "Y")
	p.want("Z", "Y")
	if n := h.Stats().Listeners; n != 1 {
		t.Errorf("%d listeners, want 1", n)
	}
	p.conn.Close()
	until(t, "the listener that closed is gone", func() bool { return h.Stats().Listeners == 0 })

	p = dial() // closes without a subscription
	p.want("*OK")
	p.conn.CloseWrite()
	until(t, "the listener without interest is gone", func() bool { return h.Stats().Listeners == 0 })
}

func TestSnapshot(t *testing.T) {
	tests := []struct {
		name, interest string
		seed, events   []string
		want           []string // after "=SEQ TIME "
	}{
		{"nothing known", "?*+\n", nil, nil, nil},
		{"seeded", "?*+\n", []string{"F 4", "Y"}, nil, []string{"F 4", "Y"}},
		{"gate follows from the number", "?YZ+\n", []string{"F 0"}, nil, []string{"Z"}},
		{"last word counts", "?YZF+\n", []string{"F 4", "Y"}, []string{"F 0", "Z", "F 1", "Y", "F 0", "Z"}, []string{"F 0", "Z"}},
		{"only the letters asked for", "?F+\n", []string{"F 4", "Y"}, []string{"F 0", "Z"}, []string{"F 0"}},
		{"load gate", "?L+\n", nil, []string{"L 1", "L 0"}, []string{"L 0"}},
		{"tags of busy workers", "?S+\n", nil, []string{
			"S 10 StateChange Idle -> Busy", "S 10 scan q10",
			"S 2 StateChange Idle -> Busy", "S 2 scan q2", "S 2 > body",
			"S 0 StateChange Idle -> Busy", "S 0 ping", "S 0 StateChange Busy -> Idle",
			"S 3 StateChange Busy -> Killed",
		}, []string{"S 2 > body", "S 10 scan q10"}},
		{"a tag that looks like a change", "?S+\n", nil, []string{"S 2 StateChange Busy -> x"}, []string{"S 2 StateChange Busy -> x"}},
		{"letters that are news only", "?BRUCD+\n", nil, []string{"B", "R", "U", "C 1 2"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, dial := serve(t, Options{}, 0)
			for _, s := range tt.seed {
				h.Seed(msg(s))
			}
			publish(h, tt.events...)
			p := dial()
			p.want("*OK")
			p.send(tt.interest)
			n := len(tt.events)
			p.want(fmt.Sprintf("*EXT %d %d", n, h.run))
			for _, want := range tt.want {
				seq, _, text, err := splitLine(strings.TrimPrefix(p.line(), "="))
				if err != nil || seq != n || text != want {
					t.Errorf("snapshot line %d %q (%v), want %d %q", seq, text, err, n, want)
				}
			}
			p.want(fmt.Sprintf("*LIVE %d", n))
		})
	}
}

// splitLine takes "SEQ TIME MESSAGE" apart.
func splitLine(line string) (seq int, at float64, text string, err error) {
	f := strings.SplitN(line, " ", 3)
	if len(f) != 3 {
		return 0, 0, "", fmt.Errorf("not an event: %q", line)
	}
	if seq, err = strconv.Atoi(f[0]); err != nil {
		return 0, 0, "", err
	}
	if len(f[1]) != 17 || f[1][10] != '.' {
		return 0, 0, "", fmt.Errorf("not a time: %q", f[1])
	}
	at, err = strconv.ParseFloat(f[1], 64)
	return seq, at, f[2], err
}

func TestExtendedEvents(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	p := dial()
	p.want("*OK")
	p.send("?YF+\n")
	p.line()
	p.want("*LIVE 0")
	start := time.Now()
	publish(h, "S 0 x", "F 1", "Z", "Y")
	for _, want := range []struct {
		seq  int
		text string
	}{{2, "F 1"}, {4, "Y"}} {
		seq, at, text, err := splitLine(p.line())
		if err != nil || seq != want.seq || text != want.text {
			t.Errorf("got %d %q (%v), want %v", seq, text, err, want)
		}
		if d := at - float64(start.UnixMicro())/1e6; d < -0.001 || d > 10 {
			t.Errorf("time %f is %f seconds off", at, d)
		}
	}
}

func TestReplay(t *testing.T) {
	h, dial := serve(t, Options{}, 4)
	publish(h, "Z", "F 0", "Y", "F 1", "A q1 100 1")
	events := func(interest string) (ack string, got []string) {
		p := dial()
		p.want("*OK")
		p.send(interest)
		ack = p.line()
		for {
			line := p.line()
			if strings.HasPrefix(line, "*LIVE ") {
				return ack, got
			}
			if f := strings.SplitN(line, " ", 3); len(f) == 3 && f[0][0] != '=' {
				line = f[0] + " " + f[2]
			} else if line[0] == '=' {
				continue
			}
			got = append(got, line)
		}
	}
	check := func(interest string, want ...string) {
		t.Helper()
		if _, got := events(interest); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q: got %q, want %q", interest, got, want)
		}
	}
	check("?*+@3\n", "4 F 1", "5 A q1 100 1")
	check("?*+@5\n")
	check("?YZ+@0\n", "1 Z", "3 Y")
	check("?YZ+@1\n", "3 Y")
	check("?YZ+@700\n", "1 Z", "3 Y") // a number of another run
	check(fmt.Sprintf("?YZ+@1/%d\n", h.run), "3 Y")
	check("?YZ+@1/77\n", "1 Z", "3 Y")

	// Past what the history holds whole: the edges and the newest F remain.
	for range 40 * chunkRecs {
		publish(h, "C 1 192.0.2.1")
	}
	publish(h, "Y")
	last := h.Stats().Messages
	_, got := events("?YZFA+@1\n")
	oldest := h.log.first()
	want := []string{fmt.Sprintf("*LOST %d", oldest-2-2), "3 Y", "4 F 1", fmt.Sprintf("%d Y", last)}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("old replay: got %q, want %q", got, want)
	}
}

func TestListenerLimit(t *testing.T) {
	h, dial := serve(t, Options{MaxListeners: 2}, 0)
	a, b := dial(), dial()
	a.want("*OK")
	b.want("*OK")
	c := dial()
	c.send("?*\n")
	c.want("*ERR No free listening slots")
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the refused connection is open")
	}
	a.conn.Close()
	until(t, "a place is free", func() bool { return h.Stats().Listeners == 1 })
	dial().want("*OK")
	if n := h.Stats().Refused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

func TestPeerCredentials(t *testing.T) {
	uid := uint32(os.Getuid())
	h, dial := serve(t, Options{Users: []uint32{uid + 1}}, 0)
	dial().want("*ERR Not allowed")
	if n := h.Stats().Refused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
	_, dial = serve(t, Options{Users: []uint32{uid + 1, uid}}, 0)
	dial().want("*OK")
}

func TestCloseSendsWhatIsOwed(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	h.grace = time.Hour // reading may take as long as it takes
	p := dial()
	p.want("*OK")
	p.ask(h, "?*\n")
	for i := range 20000 {
		h.Publish(notify.Message{Letter: 'F', Text: strconv.Itoa(i)})
	}
	closed := make(chan bool)
	go func() { h.Close(); close(closed) }()
	for i := range 20000 {
		p.want("F " + strconv.Itoa(i))
	}
	if _, err := p.r.ReadByte(); err == nil {
		t.Error("open after the hub has closed")
	}
	testenv.Receive(t, "the end of Close, which waits for nobody any more", closed)
	h.Publish(notify.Message{Letter: 'Z'}) // goes nowhere, harms nobody
}

// TestCloseDoesNotWait has a listener that reads nothing: Close ends after its
// grace, and not when the listener does.
func TestCloseDoesNotWait(t *testing.T) {
	h, dial := serve(t, Options{}, 0)
	h.grace = 10 * time.Millisecond
	stuck := dial()
	stuck.want("*OK")
	stuck.ask(h, "?*\n")
	long := strings.Repeat("x", 200)
	for range 20000 { // more than the socket takes
		h.Publish(notify.Message{Letter: 'F', Text: long})
	}
	closed := make(chan bool)
	go func() { h.Close(); close(closed) }()
	testenv.Receive(t, "the end of Close, which a listener that does not read holds up", closed)
}

// TestSlowListenerKeepsEdges lets a listener sleep through far more than the
// history holds.
func TestSlowListenerKeepsEdges(t *testing.T) {
	for _, interest := range []string{"?*+\n", "?*\n", "?YZ\n", "?SF+\n", "?YZC+\n"} {
		t.Run(strings.TrimSpace(interest), func(t *testing.T) {
			h, dial := serve(t, Options{}, 3)
			p := dial()
			p.want("*OK")
			p.ask(h, interest)
			var sent []string
			for i := range testenv.Load(20000, 60000) {
				line := fmt.Sprintf("S %d tag %d", i%7, i)
				switch {
				case i%100 == 50:
					line = "Z"
				case i%100 == 51:
					line = "Y"
				case i%3 == 0:
					line = "F " + strconv.Itoa(i%9)
				case i%11 == 0:
					line = "C " + strconv.Itoa(i)
				}
				h.Publish(msg(line))
				sent = append(sent, line)
			}
			last := "Y" // that which ends the reading
			if !strings.ContainsAny(interest, "*Y") {
				last = "F 99"
			}
			publish(h, last)
			sent = append(sent, last)
			checkStream(t, p, parseInterestString(interest), sent)
		})
	}
}

func parseInterestString(s string) interest {
	in, _ := parseInterest([]byte(strings.TrimSpace(s)))
	return in
}

// checkStream reads what a listener gets of sent, from number 1 to the last
// one, and checks what every listener may rely on.
func checkStream(t *testing.T, p *peer, in interest, sent []string) {
	t.Helper()
	total, got, lost, at := 0, 0, 0, 0
	edges := []string{}
	newest := map[string]string{}
	for _, s := range sent {
		if !in.letters.has(s[0]) {
			continue
		}
		total++
		if strings.IndexByte(edgeLetters, s[0]) >= 0 {
			edges = append(edges, s)
		} else if s[0] != 'C' {
			newest[strings.Join(strings.Fields(s)[:min(2, 1+strings.Count(s, "S "))], " ")] = s
		}
	}
	e := 0
	for at < len(sent) {
		line := p.line()
		if strings.HasPrefix(line, "*LOST ") {
			n, _ := strconv.Atoi(line[6:])
			lost += n
			continue
		}
		if line[0] == '*' || line[0] == '=' {
			continue
		}
		text := line
		if in.extended {
			seq, _, rest, err := splitLine(line)
			if err != nil {
				t.Fatal(err)
			}
			if seq <= at || sent[seq-1] != rest {
				t.Fatalf("number %d after %d: %q, want %q", seq, at, rest, sent[seq-1])
			}
			at, text = seq, rest
		} else {
			for at < len(sent) && sent[at] != text { // some later message of this text
				at++
			}
			if at == len(sent) {
				t.Fatalf("%q was never published, or comes too late", text)
			}
			at++
		}
		got++
		if strings.IndexByte(edgeLetters, text[0]) >= 0 {
			if e == len(edges) || edges[e] != text {
				t.Fatalf("edge %d is %q", e, text)
			}
			e++
		}
		key := strings.Join(strings.Fields(text)[:min(2, 1+strings.Count(text, "S "))], " ")
		if newest[key] == text {
			delete(newest, key)
		}
		if !in.extended && e == len(edges) && len(newest) == 0 {
			break
		}
	}
	if e != len(edges) {
		t.Errorf("%d edges, want %d", e, len(edges))
	}
	if len(newest) > 0 {
		t.Errorf("newest states missing: %v", newest)
	}
	if in.extended && got+lost != total {
		t.Errorf("got %d and lost %d of %d", got, lost, total)
	}
	t.Logf("%d of %d, %d reported lost", got, total, lost)
}

func TestTooSlow(t *testing.T) {
	h, dial := serve(t, Options{}, 3)
	p, states := dial(), dial()
	p.want("*OK")
	states.want("*OK")
	p.ask(h, "?YZ\n")
	states.ask(h, "?F\n")
	for range 3 * maxEdgeChunks * chunkRecs / 40 {
		for range 40 {
			h.Publish(notify.Message{Letter: 'Z'}, notify.Message{Letter: 'Y'})
		}
		h.Publish(notify.Message{Letter: 'F', Text: "3"})
	}
	n := 0
	for want := "Z"; ; n++ {
		line := p.line()
		if line == "*ERR too slow" {
			break
		}
		if line != want {
			t.Fatalf("line %d is %q, want %q", n, line, want)
		}
		want = map[string]string{"Z": "Y", "Y": "Z"}[want]
	}
	if _, err := p.r.ReadByte(); err == nil {
		t.Error("open after *ERR")
	}
	t.Logf("closed after %d edges", n)
	states.want("F 3") // nothing that cannot be compressed: not too slow
	until(t, "the slow listener is gone", func() bool { return h.Stats().Listeners == 1 })
	if s := h.Stats(); s.TooSlow != 1 {
		t.Errorf("%+v", s)
	}
}

// TestManyListeners has listeners that read, pause, never read, subscribe anew
// and leave, while several goroutines publish.
func TestManyListeners(t *testing.T) {
	h, dial := serve(t, Options{}, 6)
	events := testenv.Load(15000, 100000)
	var wg, whole sync.WaitGroup
	interests := []string{"?*+\n", "?*\n", "?YZ\n", "?YZ+\n", "?FYZ+\n", "?S+\n"}
	for i := range 60 {
		in := interests[i%len(interests)]
		p := dial()
		p.want("*OK")
		p.ask(h, in)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		switch i % 10 {
		case 3: // never reads
		case 7: // leaves
			p.conn.Close()
		default:
			wg.Add(1)
			if in == "?*+\n" {
				whole.Add(1)
			}
			go func() {
				defer wg.Done()
				readAll(t, p, parseInterestString(in), func(text string) {
					if text == "R" && in == "?*+\n" {
						whole.Done()
					}
				}, rng)
			}()
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range events - 1 {
		switch rng.IntN(10) {
		case 0:
			h.Publish(notify.Message{Letter: 'Z'})
		case 1:
			h.Publish(notify.Message{Letter: 'Y'})
		case 2, 3:
			h.Publish(notify.Message{Letter: 'F', Text: strconv.Itoa(i)})
		default:
			h.Publish(notify.Message{Letter: 'S', Text: strconv.Itoa(i%9) + " " + strconv.Itoa(i)})
		}
		if i%5000 == 0 {
			testenv.Pause(time.Millisecond)
		}
	}
	h.Publish(notify.Message{Letter: 'R'}) // the last
	whole.Wait()
	h.Close()
	wg.Wait()
}

// readAll reads to the end of the connection, with pauses, and checks numbers
// and losses.
func readAll(t *testing.T, p *peer, in interest, see func(text string), rng *rand.Rand) {
	at, n := 0, 0
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			break
		}
		if n++; rng.IntN(5000) == 0 {
			testenv.Pause(time.Duration(rng.IntN(3)) * time.Millisecond)
		}
		if !in.extended || line[0] == '*' || line[0] == '=' {
			continue
		}
		seq, _, text, err := splitLine(strings.TrimSuffix(line, "\n"))
		if err != nil || seq <= at || !in.letters.has(text[0]) {
			t.Errorf("line %q after %d: %v", line, at, err)
			return
		}
		at = seq
		see(text)
	}
	if n == 0 {
		t.Errorf("%+v read nothing", in)
	}
}

// TestLateSignal: a distributor that a signal wakes which came too late for its
// last rest is at work, and the hub must know: it uses old chunks again while the
// distributor rests.
func TestLateSignal(t *testing.T) {
	h := New(Options{})
	h.started = true // but nothing distributes
	d := &distributor{hub: h, behind: map[*listener]bool{}, pace: newPace(time.Now())}
	h.wake <- struct{}{}
	d.take()
	if !d.wait(time.Now()) || h.idle {
		t.Errorf("the hub takes the distributor for idle: %v", h.idle)
	}
}
