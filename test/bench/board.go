package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// rack is how many daemons the board watches, and rackEvents how many events a second they have together at most.
const (
	rack       = 100
	rackEvents = 10_000
)

// rackRequest is what a proxy says of one client and its messages, with the number of the session.
var rackRequest = []string{
	"C s%d 192.0.2.1", "S 0 StateChange Idle -> Busy", "F 2", "S 0 scan q1", "S 0 StateChange Busy -> Idle", "F 3",
	"A s%d q1 1000 1", "J s%d 554", "T s%d 451", "D s%d 192.0.2.1 1",
}

// board measures the CPU that postern-board takes for a rack of daemons, each at a socket of its own, with metrics of the
// size of a real one's, while two browsers look on: one at the overview, one at the refusals. Each event is a write of its
// own, as from daemons that have little to say; a hub puts those of a moment together.
func (b *bench) board() error {
	seconds := pick(b.quick, 10, 30)
	fmt.Printf("\nBoard: %d daemons with events and metrics, two pages open; %d s each\n\n", rack, seconds)
	g, err := b.startRack()
	if err != nil {
		return err
	}
	defer g.close()
	web, pid, err := b.startBoard(g)
	if err != nil {
		return err
	}
	overview, err := openPage(web, "/")
	if err != nil {
		return err
	}
	defer overview.Close()
	refusals, err := openPage(web, "/refusals")
	if err != nil {
		return err
	}
	defer refusals.Close()
	var updates atomic.Int64
	go pages(overview, func(string) { updates.Add(1) })
	var ages ages
	go pages(refusals, func(page string) { ages.add(g, page) })
	for _, rate := range []int{0, 1000, rackEvents} {
		ages.take()
		sent, taken, shown, before := g.sent.Load(), boardEvents(web), updates.Load(), cpu(pid)
		took, err := g.send(rate, time.Duration(seconds)*time.Second)
		if err != nil {
			return err
		}
		share := float64(cpu(pid)-before) / float64(took)
		got := func() int { return boardEvents(web) - taken }
		want := int(g.sent.Load() - sent)
		lost := await("the last event", func() bool { return got() >= want })
		old := ages.take()
		fmt.Printf("%6d events a second: %4.1f %% of a processor, %.1f MiB; the overview came %d times, the newest refusal shown was %s old\n", want/seconds,
			100*share, mib(memory(pid)), updates.Load()-shown, spread(old))
		if rate != rackEvents {
			continue
		}
		b.goals.add(share < 1, fmt.Sprintf("CPU of the board, %d daemons, %d events a second", rack, rate), "under one processor", "%.0f %% of one", 100*share)
		b.goals.add(lost == nil && want >= rate*seconds*9/10, "events that the board has taken", "all", "%d of %d, at %d a second", got(), want, want/seconds)
		b.goals.add(len(old) > seconds/2 && percentile(old, 0.99) < 5*time.Second, "age of the newest refusal on an open page, p99", "under 5s", "%s", spread(old))
	}
	return nil
}

// rackOf is the daemons.
type rackOf struct {
	dir       string
	listeners []net.Listener
	conns     chan net.Conn
	up        []net.Conn
	seq       []int // of each
	figures   []byte
	sent      atomic.Int64

	mu       sync.Mutex
	sessions []time.Time // when each was refused
}

// startRack makes the sockets. Metrics are those that a proxy has.
func (b *bench) startRack() (*rackOf, error) {
	dir, err := b.scratch("rack")
	if err != nil {
		return nil, err
	}
	g := &rackOf{dir: dir, conns: make(chan net.Conn, rack)}
	real, log := filepath.Join(dir, "real"), filepath.Join(dir, "log")
	pid, err := b.children.start(log, b.ours("smtp-proxy"), "--config", "/dev/null", "--smtp", filepath.Join(dir, "smtp"), "--metrics", real, "--upstream", "smtp://127.0.0.1:1")
	if err != nil {
		return nil, err
	}
	if err := awaitChild("smtp-proxy", pid, log, func() bool { g.figures, err = get(real, "/metrics"); return err == nil }); err != nil {
		return nil, err
	}
	for i := range rack {
		events, err := g.listen(fmt.Sprintf("events-%d", i))
		if err != nil {
			return nil, err
		}
		go func() {
			for {
				c, err := events.Accept()
				if err != nil {
					return
				}
				g.conns <- c
			}
		}()
		metrics, err := g.listen(fmt.Sprintf("metrics-%d", i))
		if err != nil {
			return nil, err
		}
		go http.Serve(metrics, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(g.figures) }))
	}
	return g, nil
}

func (g *rackOf) listen(name string) (net.Listener, error) {
	path := filepath.Join(g.dir, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	g.listeners = append(g.listeners, l)
	return l, os.Chmod(path, 0o666)
}

func (g *rackOf) close() {
	for _, l := range g.listeners {
		l.Close()
	}
	for _, c := range g.up {
		c.Close()
	}
}

// startBoard starts the board, and has all daemons greet it. It returns the socket of its pages.
func (b *bench) startBoard(g *rackOf) (web string, pid int, err error) {
	var conf strings.Builder
	web = filepath.Join(g.dir, "web")
	fmt.Fprintf(&conf, "http %s\nmetrics %s.metrics\n", web, web)
	for i := range rack {
		fmt.Fprintf(&conf, "daemon gw%d smtp-proxy notify=%s/events-%[1]d metrics=%[2]s/metrics-%[1]d\n", i, g.dir)
	}
	file, log := filepath.Join(g.dir, "conf"), filepath.Join(g.dir, "board.log")
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		return "", 0, err
	}
	if pid, err = b.children.start(log, b.ours("postern-board"), "--config", file); err != nil {
		return "", 0, err
	}
	for range rack {
		select {
		case c := <-g.conns:
			if _, err := io.WriteString(c, "*OK\n"); err != nil {
				return "", 0, err
			}
			if _, err := c.Read(make([]byte, 100)); err != nil {
				return "", 0, err
			}
			if _, err := io.WriteString(c, "*EXT 0 1\n*LIVE 0\n"); err != nil {
				return "", 0, err
			}
			g.up = append(g.up, c)
		case <-time.After(20 * time.Second):
			text, _ := os.ReadFile(log)
			return "", 0, fmt.Errorf("the board watches %d daemons, want %d\n%s", len(g.up), rack, text)
		}
	}
	g.seq = make([]int, rack)
	return web, pid, awaitChild("postern-board", pid, log, func() bool { _, err := get(web, "/"); return err == nil })
}

// send has the daemons say so much a second, in turns, and gives how long it took.
func (g *rackOf) send(rate int, length time.Duration) (time.Duration, error) {
	began := time.Now()
	for said := 0; time.Since(began) < length; time.Sleep(time.Millisecond) {
		for ; said < int(time.Since(began).Seconds()*float64(rate)); said++ {
			n := int(g.sent.Load())
			daemon, round := n%rack, n/rack
			session, step := round/len(rackRequest)*rack+daemon, round%len(rackRequest)
			now := time.Now()
			if step == 7 {
				g.mu.Lock()
				g.sessions = slices.Grow(g.sessions, max(0, session+1-len(g.sessions)))[:max(len(g.sessions), session+1)]
				g.sessions[session] = now
				g.mu.Unlock()
			}
			g.seq[daemon]++
			text := strings.Replace(rackRequest[step], "%d", strconv.Itoa(session), 1)
			if _, err := fmt.Fprintf(g.up[daemon], "%d %d.%06d %s\n", g.seq[daemon], now.Unix(), now.Nanosecond()/1000, text); err != nil {
				return 0, err
			}
			g.sent.Add(1)
		}
	}
	return time.Since(began), nil
}

// ages are how old the newest refusal was each time that a page came.
type ages struct {
	mu  sync.Mutex
	all []time.Duration
}

var sessionShown = regexp.MustCompile(`q=s(\d+)"`)

// add looks at a page.
func (a *ages) add(g *rackOf, page string) {
	now, newest := time.Now(), time.Time{}
	g.mu.Lock()
	for _, m := range sessionShown.FindAllStringSubmatch(page, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil && n < len(g.sessions) && g.sessions[n].After(newest) {
			newest = g.sessions[n]
		}
	}
	g.mu.Unlock()
	if newest.IsZero() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, now.Sub(newest))
}

// take gives those since the last time, the least first.
func (a *ages) take() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	slices.Sort(all)
	return all
}

// overUnix is an HTTP client of a UNIX socket.
func overUnix(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// get reads a page once.
func get(socket, path string) ([]byte, error) {
	r, err := overUnix(socket).Get("http://localhost" + path)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, r.Status)
	}
	return io.ReadAll(r.Body)
}

// boardEvents is how many events the board has taken.
func boardEvents(web string) int {
	text, _ := get(web+".metrics", "/metrics")
	_, rest, _ := strings.Cut(string(text), "\npostern_board_events_total ")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseFloat(line, 64)
	return int(n)
}

// openPage opens a page as a browser has it open.
func openPage(socket, path string) (io.ReadCloser, error) {
	request, err := http.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	r, err := overUnix(socket).Do(request)
	if err != nil {
		return nil, err
	}
	return r.Body, nil
}

// pages calls shown with each page of a stream, until it ends.
func pages(stream io.Reader, shown func(page string)) {
	r := bufio.NewReader(stream)
	var page strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\n" {
			shown(page.String())
			page.Reset()
			continue
		}
		page.WriteString(line)
	}
}
