package main

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
)

// eventReader is a listener to a proxy's events, on a real socket.
type eventReader struct {
	t   *testing.T
	r   *bufio.Reader
	seq uint64
}

// listenTo serves the proxy's notification socket and listens there: in the form that numbers events, so that it is
// known when listening has begun and that nothing was left out.
func listenTo(t *testing.T, p *proxy) *eventReader {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "n"))
	must(t, err)
	serve := testenv.Go(t, "the hub", func() error { return p.hub.Serve(l) })
	t.Cleanup(func() { l.Close(); p.hub.Close(); _ = serve.Err() })
	nc := testenv.Dial(t, "unix", l.Addr().String())
	e := &eventReader{t: t, r: bufio.NewReader(nc)}
	if line := e.line(); line != "*OK" {
		t.Fatalf("greeting %q", line)
	}
	_, err = nc.Write([]byte("?*+\n"))
	must(t, err)
	for {
		if number, ok := strings.CutPrefix(e.line(), "*LIVE "); ok {
			e.seq, err = strconv.ParseUint(number, 10, 64)
			must(t, err)
			return e
		}
	}
}

func (e *eventReader) line() string {
	e.t.Helper()
	line, err := e.r.ReadString('\n')
	if err != nil {
		e.t.Fatalf("event: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// expect reads the next event, which must be the next number and match a pattern, and gives what is in its brackets.
func (e *eventReader) expect(pattern string) []string {
	e.t.Helper()
	number, rest, _ := strings.Cut(e.line(), " ")
	_, message, _ := strings.Cut(rest, " ")
	e.seq++
	if number != fmt.Sprint(e.seq) {
		e.t.Errorf("event %s %q, want number %d", number, message, e.seq)
	}
	m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(message)
	if m == nil {
		e.t.Fatalf("event %q, want %q", message, pattern)
	}
	return m[1:]
}

// TestEvents hears the whole life of a session, in its order.
func TestEvents(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		switch {
		case a.Verb == "." && strings.Contains(a.Line, "refuse"):
			return "554 5.7.1 No"
		case a.Verb == "." && strings.Contains(a.Line, "defer"):
			return "451 4.7.1 Later"
		}
		return ""
	})
	p := startProxy(t, behind(b), "--max-sessions=2")
	e := listenTo(t, p)
	c := greeted(t, p.addr)
	e.expect("F 1")
	id := e.expect(`C (\w+) 127\.0\.0\.1`)[0]
	for _, m := range []struct{ text, reply, event string }{
		{"accept", "250", "A " + id + ` \w+ 19 2`}, {"refuse", "554", "J " + id + " 554"}, {"defer", "451", "T " + id + " 451"},
	} {
		c.envelope()
		c.cmd("RCPT TO:<two@server.example>", "250")
		c.cmd("DATA", "354")
		c.send("Subject: " + m.text + "\r\n\r\n.\r\n")
		c.expect(m.reply)
		e.expect(m.event)
	}
	second := dial(t, p.addr)
	e.expect("F 0")
	e.expect("Z")
	other := e.expect(`C (\w+) 127\.0\.0\.1`)[0]
	if other == id {
		t.Error("two sessions have one id")
	}
	dial(t, p.addr).expect("421 4.3.2")
	e.expect(`G - 127\.0\.0\.1 sessions 421`)
	second.Close()
	e.expect("D " + other + ` 127\.0\.0\.1 \d+\.\d{3}`)
	e.expect("F 1")
	e.expect("Y")
	c.cmd("QUIT", "221")
	e.expect("D " + id + ` 127\.0\.0\.1 \d+\.\d{3}`)
	e.expect("F 2")
}

// TestLoadEvents hears the load gate shut and open, without a client that would have it look.
func TestLoadEvents(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "load")
	writeFile(t, file, "0.5 9 9 1/1 1\n")
	p := startProxy(t, behind(testenv.StartBackend(t)), "--maxloadavg=1", "--loadavg-file", file)
	e := listenTo(t, p)
	for _, edge := range []struct{ load, event string }{{"1.0 0 0 1/1 1\n", "L 1"}, {"0.9 9 9 1/1 1\n", "L 0"}} {
		writeFile(t, file, edge.load)
		var stop atomic.Bool
		look := testenv.Go(t, "looks at the load", func() error {
			for !stop.Load() {
				p.watch()
				testenv.Pause(10 * time.Millisecond)
			}
			return nil
		})
		e.expect(edge.event)
		stop.Store(true)
		look.Wait()
	}
}
