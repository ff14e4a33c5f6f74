package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// extended is a server with commands that the proxy does not know, and replies of any shape to them.
func extended(s *seen) backendFunc {
	return func(p *peer) {
		p.send("+OK ready\r\n")
		for {
			line := p.line()
			if line == "" {
				return
			}
			s.add(line)
			switch line {
			case "XLINES":
				p.send("+OK\r\n1 x\r\n")
				p.send("2 y\r\n.\r\n")
			case "XBIG":
				p.send("+OK\r\n" + strings.Repeat(strings.Repeat("z", 998)+"\r\n", 4000) + ".\r\n")
			case "XGONE":
				p.send("+OK half of\r\n")
				return
			case "QUIT":
				p.send("+OK bye\r\n")
				return
			case "QUIT badly":
				return
			default:
				p.send("+OK " + line + "\r\n")
			}
		}
	}
}

// TestUnknownCommandsPass: where the settings say so, what the proxy does not know goes to the server, and any reply comes
// back. The stamp is renewed at QUIT as ever.
func TestUnknownCommandsPass(t *testing.T) {
	var s seen
	r := start(t, backendAt(t, extended(&s)), "--unknown-commands", "pass", "--clientip-maxage", "1ms", "--expire-interval", "0")
	p := r.client(t)
	p.ask("XBEFORE", "-ERR unknown command")
	p.ask("USER bob", "+OK")
	p.ask("PASS secret", "+OK")
	p.ask("STAT", "-ERR [SYS/TEMP]") // what it knows it reads, as ever
	p.ended()

	p = r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS secret", "+OK")
	p.send("XONE a b\r\nsecret word\r\nXLINES\r\nXBIG\r\nNOOP\r\n")
	for _, want := range []string{"+OK XONE a b", "+OK secret word", "+OK", "1 x", "2 y", ".", "+OK"} {
		p.want(want)
	}
	for range 4000 {
		p.want("zzz")
	}
	p.want(".")
	p.want("+OK NOOP")
	stamp, old := filepath.Join(r.stamp, "127.0.0.1"), time.Now().Add(-5*time.Minute)
	if err := os.Chtimes(stamp, old, old); err != nil {
		t.Fatal(err)
	}
	p.ask("QUIT", "+OK bye")
	p.ended()
	testenv.Eventually(t, "the stamp is renewed", func() bool {
		info, err := os.Stat(stamp)
		return err == nil && time.Since(info.ModTime()) < time.Minute
	})
	if strings.Contains(r.log.String(), "secret word") {
		t.Error("the log has what was passed on unread")
	}
	if got := s.count("XBEFORE"); got != 0 {
		t.Error("a command before the login went to the server")
	}
}

// TestJoinedEnds: whoever of the two ends, the other is not left waiting, and no stamp is renewed.
func TestJoinedEnds(t *testing.T) {
	for why, last := range map[string]string{serverEnded: "XGONE", "malformed command": "X\x00", clientLeft: ""} {
		t.Run(why, func(t *testing.T) {
			var s seen
			r := start(t, backendAt(t, extended(&s)), "--unknown-commands", "pass")
			p := r.client(t)
			p.ask("USER bob", "+OK")
			p.ask("PASS secret", "+OK")
			p.ask("XONE", "+OK XONE")
			if last != "" {
				p.send(last + "\r\n")
				if rest, err := io.ReadAll(p.r); err != nil || strings.Contains(string(rest), "-ERR") {
					t.Errorf("got %q, %v", rest, err)
				}
			}
			_ = p.Close()
			testenv.Eventually(t, "the session has ended", func() bool { return strings.Contains(r.log.String(), "session ended") })
			if !strings.Contains(r.log.String(), `reason="`+why+`"`) {
				t.Errorf("want the reason %q: %s", why, r.log.String())
			}
		})
	}
}

// TestHalfLine: half a line is not dropped when the time of an idle client is over and the server has said something: the
// session ends.
func TestHalfLine(t *testing.T) {
	r := start(t, backendAt(t, func(p *peer) {
		p.send("+OK ready\r\n")
		for range 2 {
			p.line()
			p.send("+OK\r\n")
		}
		p.line()
		for { // until the session ends
			if _, err := io.WriteString(p, "+OK\r\n"); err != nil {
				return
			}
			testenv.Pause(10 * time.Millisecond)
		}
	}), "--unknown-commands", "pass", "--idle-timeout", "200ms")
	p := r.client(t)
	p.ask("USER bob", "+OK")
	p.ask("PASS secret", "+OK")
	p.send("XONE\r\nXHA")
	testenv.Eventually(t, "the session has ended", func() bool { return strings.Contains(r.log.String(), "reason=timeout") })
}

// TestLastLine: what a server says comes in pieces of any size.
func TestLastLine(t *testing.T) {
	text := strings.Repeat("x", 2000) + "\r\n+ERR\r\n+OK bye\r\n"
	for size := range 40 {
		var tail []byte
		for rest := text; rest != ""; {
			n := min(size+1, len(rest))
			tail, rest = appendTail(tail, []byte(rest[:n])), rest[n:]
		}
		if got := string(lastLine(tail)); got != "+OK bye\r" {
			t.Fatalf("pieces of %d: %q", size+1, got)
		}
	}
	if got := lastLine(appendTail(nil, []byte("+OK"))); string(got) != "+OK" {
		t.Errorf("%q", got)
	}
}
