package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

// fakeMultiplexor answers requests as a function says. It knows nothing of persistent connections.
type fakeMultiplexor struct {
	spec  string
	spool string
	mu    sync.Mutex
	asked []string
}

func startMultiplexor(t *testing.T, answer func(words []string) string) *fakeMultiplexor {
	t.Helper()
	dir := testenv.ShortDir(t)
	m := &fakeMultiplexor{spec: filepath.Join(dir, "mx"), spool: filepath.Join(dir, "spool")}
	if err := os.Mkdir(m.spool, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.spec)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { m.serve(c, answer) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return m
}

func (m *fakeMultiplexor) serve(c net.Conn, answer func([]string) string) {
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return
	}
	words := strings.Fields(line)
	reply := ""
	switch words[0] {
	case "hello":
		reply = "error: Unknown command\n"
	case "free":
		reply = "1\n"
	default:
		m.mu.Lock()
		m.asked = append(m.asked, strings.TrimSuffix(line, "\n"))
		m.mu.Unlock()
		reply = answer(words)
	}
	fmt.Fprint(c, reply)
}

func (m *fakeMultiplexor) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

// args gives the arguments for a proxy with all stages on.
func (m *fakeMultiplexor) args(more ...string) []string {
	return append([]string{"--multiplexor", m.spec, "--spool", m.spool, "--relayok", "--helook", "--senderok", "--recipok", "--client-lookup=no"}, more...)
}

// scanWith answers every stage with "go on", and the scan with a RESULTS file.
func scanWith(t *testing.T, results string) func([]string) string {
	return func(words []string) string {
		if words[0] != "scan" {
			return "ok 1 ok 250 2.1.0 0\n"
		}
		if err := os.WriteFile(filepath.Join(words[2], "RESULTS"), []byte(results), 0o600); err != nil {
			t.Error(err)
		}
		return "ok\n"
	}
}

// deliverThrough sends one message through a proxy whose filter answers so, and gives the reply.
func deliverThrough(t *testing.T, b *testenv.Backend, m *fakeMultiplexor, content string, args ...string) string {
	t.Helper()
	p := startProxy(t, append(m.args(args...), behind(b))...)
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<from@client.example> SIZE=100", "250")
	c.cmd("RCPT TO:<one@server.example>", "250")
	c.cmd("RCPT TO:<two@server.example> NOTIFY=NEVER", "250")
	c.cmd("DATA", "354")
	c.send(content)
	r := c.expect("")
	c.cmd("QUIT", "221")
	c.expectEnd()
	testenv.Eventually(t, "the working directory is removed", func() bool {
		left, err := os.ReadDir(m.spool)
		return err == nil && len(left) == 0
	})
	return r.String()
}

const filterMessage = "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\n" +
	"Content-Type: text/plain\r\n\r\nBody\r\n..dot\r\n.\r\n"

func TestFilterRequests(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	var commands, headers, input string
	answer := scanWith(t, "F\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			commands, headers, input = readFile(t, filepath.Join(words[2], "COMMANDS")), readFile(t, filepath.Join(words[2], "HEADERS")), readFile(t, filepath.Join(words[2], "INPUTMSG"))
		}
		return answer(words)
	})
	if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, "250") {
		t.Fatalf("reply %q", got)
	}
	asked := m.requests()
	if len(asked) != 6 {
		t.Fatalf("asked %q", asked)
	}
	for i, want := range []string{
		"relayok 127.0.0.1 [127.0.0.1] ", "helook 127.0.0.1 [127.0.0.1] client.example ", "senderok <from@client.example> 127.0.0.1 [127.0.0.1] client.example " + m.spool,
		"recipok <one@server.example> <from@client.example> 127.0.0.1 [127.0.0.1] <one@server.example> client.example " + m.spool,
		"recipok <two@server.example> <from@client.example> 127.0.0.1 [127.0.0.1] <one@server.example> client.example " + m.spool, "scan ",
	} {
		if !strings.HasPrefix(asked[i], want) {
			t.Errorf("request %d is %q, want %q", i, asked[i], want)
		}
	}
	for _, want := range []string{"\nS<from@client.example>\nsSIZE=100\n", "\nEclient.example\n", "\nR<one@server.example> ", "\nR<two@server.example> ", "\nrNOTIFY=NEVER\n", "\nUtest\n", "\nF\n"} {
		if !strings.Contains(commands, want) {
			t.Errorf("no %q in COMMANDS %q", want, commands)
		}
	}
	if want := "Received: by earlier\nSubject: test\n"; !strings.HasPrefix(headers, want) || !strings.HasPrefix(input, want) {
		t.Errorf("HEADERS %q, INPUTMSG %q", headers, input)
	}
	if !strings.HasSuffix(input, "\n\nBody\n.dot\n") {
		t.Errorf("INPUTMSG %q", input)
	}
	if got := b.Messages(); len(got) != 1 || !strings.HasSuffix(body(t, got[0]), "\r\n\r\nBody\r\n.dot\r\n") {
		t.Errorf("delivered %+v", got)
	}
}

func TestFilterChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, results string
		newBody       string // "-" for none
		header        string // behind our Received field; "top:" in front for the whole
		body          string
	}{
		{"nothing", "F\n", "-", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\n", "Body\r\n.dot\r\n"},
		{"add", "HX-New a%20b\nF\n", "-", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\nX-New: a b\r\n", "Body\r\n.dot\r\n"},
		{"delete both upward", "JX-Remove 1\nJx-remove 1\nF\n", "-", "Received: by earlier\r\nSubject: test\r\nContent-Type: text/plain\r\n", "Body\r\n.dot\r\n"},
		{"delete beyond", "JX-Remove 3\nF\n", "-", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\n", "Body\r\n.dot\r\n"},
		{"change", "ISubject 1 [spam]%20test\nIX-Remove 2 \nIX-None 1 new\nF\n", "-", "Received: by earlier\r\nSubject: [spam] test\r\nX-Remove: one\r\nContent-Type: text/plain\r\nX-None: new\r\n", "Body\r\n.dot\r\n"},
		{"change Received leaves ours", "IReceived 1 changed\nF\n", "-", "Received: changed\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\n", "Body\r\n.dot\r\n"},
		{"insert below ours", "NX-One 1 first\nNX-Two 1 second\nNX-End 99 last\nF\n", "-", "X-Two: second\r\nX-One: first\r\nReceived: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\nX-End: last\r\n", "Body\r\n.dot\r\n"},
		{"added then changed", "HX-New a\nIX-New 1 b\nF\n", "-", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\nX-New: b\r\n", "Body\r\n.dot\r\n"},
		{"fold", "HX-New a%0Ab%0A%20c\nF\n", "-", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\nX-New: a\r\n\tb\r\n c\r\n", "Body\r\n.dot\r\n"},
		{"new body", "Mtext/html\nC\nF\n", "new\n.\r\nlast", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\n", "new\r\n.\r\nlast\r\n"},
		{"empty body", "C\nF\n", "", "Received: by earlier\r\nSubject: test\r\nX-Remove: one\r\nX-Remove: two\r\nContent-Type: text/plain\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			answer := scanWith(t, tt.results)
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" && tt.newBody != "-" {
					if err := os.WriteFile(filepath.Join(words[2], "NEWBODY"), []byte(tt.newBody), 0o600); err != nil {
						t.Error(err)
					}
				}
				return answer(words)
			})
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, "250") {
				t.Fatalf("reply %q", got)
			}
			got := b.Messages()
			if len(got) != 1 {
				t.Fatalf("%d messages", len(got))
			}
			if text, want := body(t, got[0]), tt.header+"\r\n"+tt.body; text != want {
				t.Errorf("delivered\n%q, want\n%q", text, want)
			}
		})
	}
}

func TestFilterInsertsOnTop(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "NX-Top 0 top\nF\n"))
	deliverThrough(t, b, m, filterMessage, "--scanned-by=Postern")
	if got := b.Messages(); len(got) != 1 || !strings.HasPrefix(got[0].Data, "X-Top: top\r\nReceived: from ") || !strings.Contains(got[0].Data, "\r\nX-Scanned-By: Postern\r\n\r\n") {
		t.Errorf("delivered %+v", got)
	}
}

func TestFilterEnvelope(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, results, from, to string
	}{
		{"sender", "f<new@x.example>\nF\n", "<new@x.example>", "[<one@server.example> <two@server.example> NOTIFY=NEVER]"},
		{"null sender", "f<>\nF\n", "<>", "[<one@server.example> <two@server.example> NOTIFY=NEVER]"},
		{"add", "Rthree@server.example\nF\n", "<from@client.example>", "[<one@server.example> <two@server.example> NOTIFY=NEVER <three@server.example>]"},
		{"delete", "S<one@server.example>\nF\n", "<from@client.example>", "[<two@server.example> NOTIFY=NEVER]"},
		{"delete and add all", "Sone@server.example\nS<two@server.example>\nR<x@y.example>\nF\n", "<from@client.example>", "[<x@y.example>]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, scanWith(t, tt.results))
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, "250") {
				t.Fatalf("reply %q", got)
			}
			got := b.Messages()
			if len(got) != 1 || got[0].From != tt.from || fmt.Sprint(got[0].To) != tt.to {
				t.Errorf("delivered %+v, want from %s to %s", got, tt.from, tt.to)
			}
		})
	}
}

func TestFilterVerdicts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, results, reply string
	}{
		{"reject", "B550 5.7.0 No%20thanks\nF\n", "550 5.7.0 No thanks"},
		{"tempfail", "T450 4.7.0 Later\nF\n", "450 4.7.0 Later"},
		{"discard", "D\nF\n", "250 2.0.0 Ok: queued as "},
		{"no end", "HX-A b\n", "451 4.3.0 "},
		{"empty", "", "451 4.3.0 "},
		{"hold", "Qlook%20at%20it\nF\n", "451 4.7.1 "},
		{"all recipients deleted", "Sone@server.example\nStwo@server.example\nF\n", "250 2.0.0 Ok: queued as "},
		{"no address", "f<a@b%3E%0D%0ARCPT%20TO:%3Cx@y>\nF\n", "451 4.3.0 "},
		{"no body file", "C\nF\n", "451 4.3.0 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, scanWith(t, tt.results))
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, tt.reply) {
				t.Errorf("reply %q, want %q", got, tt.reply)
			}
			if got := b.Messages(); len(got) != 0 {
				t.Errorf("delivered %+v", got)
			}
		})
	}
}

func TestFilterStages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		verb, answer                       string
		greeting, hello, mail, rcpt, rcpt2 string // expected replies; "" ends there
		data                               string
		scanned                            bool
		delivered                          int
	}{
		{"relayok", "ok 0 Go%20away 554 5.7.1 0", "554 5.7.1 Go away", "", "", "", "", "", false, 0},
		{"relayok", "ok -1 Later 450 4.7.1 0", "450 4.7.1 Later", "", "", "", "", "", false, 0},
		{"relayok", "error: No free workers", "451 4.3.0", "", "", "", "", "", false, 0},
		{"relayok", "ok 2 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 1},
		{"helook", "ok 0 Bad%20name 550 5.7.1 0", "220", "550 5.7.1 Bad name", "", "", "", "", false, 0},
		{"helook", "ok 2 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 1},
		{"helook", "ok 3 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", true, 1},
		{"senderok", "ok 0 No 553 5.1.8 0", "220", "250", "553 5.1.8 No", "", "", "", false, 0},
		{"senderok", "ok -1 Grey 451 4.7.1 0", "220", "250", "451 4.7.1 Grey", "", "", "", false, 0},
		{"senderok", "ok 2 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 1},
		{"senderok", "ok 3 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 0},
		{"senderok", "ok 4", "220", "250", "451 4.3.0", "", "", "", false, 0},
		{"recipok", "ok 0 Unknown 550 5.1.1 0", "220", "250", "250", "550 5.1.1 Unknown", "250", "250", true, 1},
		{"recipok", "ok 2 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 1},
		{"recipok", "ok 3 ok 250 2.1.0 0", "220", "250", "250", "250", "250", "250", false, 0},
		{"scan", "error: filter failed", "220", "250", "250", "250", "250", "451 4.3.0", true, 0},
		{"scan", "ok 1", "220", "250", "250", "250", "250", "451 4.3.0", true, 0},
	} {
		t.Run(tt.verb+" "+tt.answer, func(t *testing.T) {
			b := testenv.StartBackend(t)
			pass := scanWith(t, "F\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == tt.verb && (tt.verb != "recipok" || strings.HasPrefix(words[1], "<one@")) {
					return tt.answer + "\n"
				}
				return pass(words)
			})
			p := startProxy(t, m.args(behind(b))...)
			c := dial(t, p.addr)
			play(c, tt.greeting, tt.hello, tt.mail, tt.rcpt, tt.rcpt2, tt.data)
			if got := len(b.Messages()); got != tt.delivered {
				t.Errorf("%d messages delivered, want %d", got, tt.delivered)
			}
			scanned := strings.Contains(strings.Join(m.requests(), "\n"), "scan ")
			if scanned != tt.scanned {
				t.Errorf("scanned: %v, want %v; asked %q", scanned, tt.scanned, m.requests())
			}
		})
	}
}

// play goes through a session as long as there is something to expect.
func play(c *dialog, greeting, hello, mail, rcpt, rcpt2, data string) {
	c.t.Helper()
	c.expect(greeting)
	for _, step := range []struct{ line, want string }{
		{"EHLO client.example", hello}, {"MAIL FROM:<a@b.example>", mail}, {"RCPT TO:<one@server.example>", rcpt}, {"RCPT TO:<two@server.example>", rcpt2},
	} {
		if step.want == "" {
			return
		}
		c.cmd(step.line, step.want)
	}
	if data != "" {
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect(data)
	}
}

// TestFilterDown has no multiplexor at all: WRK-19.
func TestFilterDown(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{"tempfail": "451 4.3.0", "accept": "250", "reject": "554 5.3.0"} {
		t.Run(policy, func(t *testing.T) {
			b := testenv.StartBackend(t)
			dir := testenv.ShortDir(t)
			p := startProxy(t, behind(b), "--multiplexor", filepath.Join(dir, "nobody"), "--spool", dir, "--worker-gate=no", "--on-failure", policy, "--max-refusals-per-address=1")
			c := greeted(t, p.addr)
			c.envelope()
			c.cmd("DATA", "354")
			c.send(smallMessage)
			c.expect(want)
			if n := len(b.Messages()); (n == 1) != (policy == "accept") {
				t.Errorf("%d messages delivered", n)
			}
			if !strings.Contains(p.log.String(), "filter failed") {
				t.Error("the log does not tell that the filter failed")
			}
			greeted(t, p.addr) // our failure is not held against the client's address
		})
	}
}

func TestFilterDelayIsBounded(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "senderok" {
			return "ok 0 slow 550 5.7.1 100000\n"
		}
		return "ok 1\n"
	})
	p := startProxy(t, m.args(behind(b), "--filter-max-delay=50ms")...)
	c := greeted(t, p.addr)
	began := time.Now()
	c.cmd("MAIL FROM:<a@b.example>", "550 5.7.1 slow")
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("reply came after %v, want 50ms", took)
	}
}

// TestServerGoneWhileFiltering has the server close the connection during the scan: nothing of the
// message having been sent, it goes over another one.
func TestServerGoneWhileFiltering(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "DATA" && a.Conn == 1 {
			return "close"
		}
		return ""
	})
	m := startMultiplexor(t, scanWith(t, "HX-Scanned yes\nF\n"))
	if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, "250") {
		t.Fatalf("reply %q", got)
	}
	if got := b.Messages(); len(got) != 1 || !strings.Contains(got[0].Data, "X-Scanned: yes") || b.Opened() != 2 {
		t.Errorf("delivered %+v over %d connections", got, b.Opened())
	}
}

// TestNewBodyIsClosed: the descriptor of a body that is not sent does not wait for the garbage collector.
func TestNewBodyIsClosed(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	answer := scanWith(t, "C\nRnot%20an%20address\nF\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			if err := os.WriteFile(filepath.Join(words[2], "NEWBODY"), []byte("x\n"), 0o600); err != nil {
				t.Error(err)
			}
		}
		return answer(words)
	})
	if got := deliverThrough(t, testenv.StartBackend(t), m, filterMessage); !strings.HasPrefix(got, "451") {
		t.Fatalf("reply %q", got)
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(open) == 0 {
		t.Fatalf("descriptors %q, %v", open, err)
	}
	for _, fd := range open {
		if name, err := os.Readlink(fd); err == nil && strings.Contains(name, "NEWBODY") {
			t.Errorf("%s is still %s", fd, name)
		}
	}
}

// TestFilterEndsSession: 421 says that the connection is closed, also when it is the filter that says so.
func TestFilterEndsSession(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"relayok", "helook", "senderok", "recipok", "scan"} {
		t.Run(verb, func(t *testing.T) {
			b := testenv.StartBackend(t)
			pass := scanWith(t, "T421 4.7.0 Go\nF\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == verb && verb != "scan" {
					return "ok -1 Go 421 4.7.0 0\n"
				}
				return pass(words)
			})
			p := startProxy(t, m.args(behind(b))...)
			c := dial(t, p.addr)
			lines := map[string]string{"helook": "EHLO a", "senderok": "MAIL FROM:<a@b.example>", "recipok": "RCPT TO:<c@d.example>", "scan": smallMessage[:len(smallMessage)-2]}
			if verb != "relayok" {
				c.expect("220 proxy.example ")
				for _, step := range []string{"helook", "senderok", "recipok"} {
					if step == verb {
						break
					}
					c.cmd(lines[step], "250")
				}
				if verb == "scan" {
					c.cmd("DATA", "354")
				}
				c.send(lines[verb] + "\r\n")
			}
			c.expect("421 4.7.0 proxy.example Go")
			c.expectEnd()
		})
	}
}

// TestAcceptedNameIsNotAnother: that a filter accepts a name without further questions holds for that name, and
// what it says of the client's address for as long as the address is the client's.
func TestAcceptedNameIsNotAnother(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, accept string
		again        func(c *dialog) *dialog
		asked        bool
	}{
		{"same name", "helook 127.0.0.1 [127.0.0.1] friend ", func(c *dialog) *dialog { return c }, false},
		{"another name", "helook 127.0.0.1 [127.0.0.1] friend ", func(c *dialog) *dialog {
			c.cmd("HELO stranger", "250")
			return c
		}, true},
		{"within TLS", "helook 127.0.0.1 [127.0.0.1] friend ", func(c *dialog) *dialog {
			c = startTLS(c)
			c.cmd("EHLO stranger", "250")
			return c
		}, true},
		{"address", "relayok ", func(c *dialog) *dialog {
			c = startTLS(c)
			c.cmd("EHLO stranger", "250")
			return c
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			pass := scanWith(t, "F\n")
			m := startMultiplexor(t, func(words []string) string {
				if strings.HasPrefix(strings.Join(words, " "), tt.accept) {
					return "ok 2 ok 250 2.1.0 0\n"
				}
				return pass(words)
			})
			p := startProxy(t, m.args(append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)...)
			c := dial(t, p.addr)
			c.expect("220")
			c.cmd("EHLO friend", "250")
			for _, asked := range []bool{false, tt.asked} {
				c.envelope()
				c.cmd("DATA", "354")
				c.send(smallMessage)
				c.expect("250")
				if got := strings.Contains(strings.Join(m.requests(), "\n"), "scan "); got != asked {
					t.Errorf("scanned: %v, want %v; asked %q", got, asked, m.requests())
				}
				if len(b.Messages()) == 1 {
					c = tt.again(c)
				}
			}
		})
	}
}

// TestFilterAddsToLMTP: the limit on the recipients that a client may name is none for those that the filter adds.
func TestFilterAddsToLMTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answers, reply string
		delivered            int // as the server counts
	}{
		{"all", "250 2.0.0 one\r\n250 2.0.0 two", "250 2.0.0 one", 1},
		{"one later", "250 2.0.0 one\r\n451 4.0.0 two", "451 4.3.0", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string { return onVerb(a, ".", tt.answers) })
			m := startMultiplexor(t, scanWith(t, "Rarchive@server.example\nF\n"))
			p := startProxy(t, m.args("--upstream=lmtp://"+b.Addr)...)
			c := greeted(t, p.addr)
			c.envelope()
			c.cmd("RCPT TO:<other@server.example>", "452 4.5.3")
			c.cmd("DATA", "354")
			c.send(smallMessage)
			c.expect(tt.reply)
			if got := b.Messages(); len(got) != tt.delivered || fmt.Sprint(got[0].To) != "[<to@server.example> <archive@server.example>]" {
				t.Errorf("delivered %+v", got)
			}
			b.Answer(nil)
			c.envelope()
			c.cmd("RCPT TO:<other@server.example>", "452 4.5.3") // the limit stands for what follows
		})
	}
}
