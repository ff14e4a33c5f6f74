package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/config"
	"postern/internal/smtp"
	"postern/internal/testenv"
	"postern/smtp-proxy/header"
)

// proxy is a server under test, on loopback.
type proxy struct {
	*server
	addr string
	log  *testenv.Buffer
}

// parseSettings reads settings as the program does.
func parseSettings(t testing.TB, args ...string) *settings {
	t.Helper()
	s := &settings{}
	args = append([]string{"--maxloadavg=0", "--error-delay=0"}, append(args, "--config", "/dev/null", "--hostname", "proxy.example")...) // this machine may be busy
	if err := readSettings(s, args); err != nil {
		t.Fatalf("settings %q: %v", args, err)
	}
	return s
}

// readSettings reads settings as the daemon skeleton does, but not from the environment.
func readSettings(s *settings, args []string) error {
	p := config.Parser{Program: programName, Lookup: func(string) (string, bool) { return "", false }}
	_, err := p.Parse(s, args)
	return err
}

// startProxy starts a server with settings given as arguments.
func startProxy(t testing.TB, args ...string) *proxy {
	t.Helper()
	return startProxyAs(t, listenSMTP, args...)
}

func startProxyAs(t testing.TB, listener string, args ...string) *proxy {
	t.Helper()
	return startProxyWith(t, listener, func(w *testenv.Buffer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	}, args...)
}

func startProxyWith(t testing.TB, listener string, handler func(*testenv.Buffer) slog.Handler, args ...string) *proxy {
	t.Helper()
	s := parseSettings(t, args...)
	conf, err := loadTLS(s)
	if err != nil {
		t.Fatal(err)
	}
	out := &testenv.Buffer{}
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := newServer(ctx, s, conf, slog.New(handler(out)))
	if err != nil {
		t.Fatal(err)
	}
	behind, err := s.UpstreamFiles.Load()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.open(behind); err != nil {
		t.Fatal(err)
	}
	srv.start(ctx)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l, listener) }()
	t.Cleanup(func() {
		l.Close()
		if err := testenv.Receive(t, "the end of Serve", served); err != nil {
			t.Errorf("Serve: %v", err)
		}
		short, done := testenv.Soon(context.Background())
		defer done()
		srv.Drain(short)
		cancel()
		srv.close()
		if t.Failed() {
			log := out.String()
			t.Logf("end of the proxy's log:\n%s", log[max(0, len(log)-(16<<10)):])
		}
	})
	return &proxy{srv, l.Addr().String(), out}
}

// behind gives the argument that puts an upstream server a proxy.
func behind(b *testenv.Backend) string { return "--upstream=smtp://" + b.Addr }

// client is the other side of a session.
type dialog struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *dialog {
	t.Helper()
	nc := testenv.Dial(t, "tcp", addr)
	return &dialog{nc, t, bufio.NewReader(nc)}
}

// greeted gives a client that has said EHLO.
func greeted(t testing.TB, addr string) *dialog {
	t.Helper()
	c := dial(t, addr)
	c.expect("220")
	c.cmd("EHLO client.example", "250")
	return c
}

func (c *dialog) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("send %.60q: %v", text, err)
	}
}

// expect reads a reply and checks how it begins.
func (c *dialog) expect(want string) smtp.Reply {
	c.t.Helper()
	r, err := smtp.ReadReply(c.r)
	if err != nil {
		c.t.Fatalf("reply: %v, want %q", err, want)
	}
	if !strings.HasPrefix(r.String(), want) {
		c.t.Fatalf("reply is %q, want %q", r.String(), want)
	}
	return r
}

func (c *dialog) cmd(line, want string) smtp.Reply {
	c.t.Helper()
	c.send(line + "\r\n")
	r, err := smtp.ReadReply(c.r)
	if err != nil {
		c.t.Fatalf("reply to %.80q: %v, want %q", line, err, want)
	}
	if !strings.HasPrefix(r.String(), want) {
		c.t.Fatalf("reply to %.80q is %q, want %q", line, r.String(), want)
	}
	return r
}

// expectEnd sees that the server ends the connection, without another byte.
func (c *dialog) expectEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("connection is not ended: %v", err)
	}
	if len(rest) > 0 {
		c.t.Fatalf("more was said: %q", rest)
	}
}

// envelope names a sender and a recipient.
func (c *dialog) envelope() {
	c.t.Helper()
	c.cmd("MAIL FROM:<from@client.example>", "250")
	c.cmd("RCPT TO:<to@server.example>", "250")
}

const smallMessage = "Subject: test\r\n\r\nHello\r\n.\r\n"

// body gives what is behind the Received field that the proxy added.
func body(t testing.TB, m testenv.Received) string {
	t.Helper()
	text, ours := strings.CutPrefix(m.Data, header.ReceivedName+": ")
	for folded := true; ours && folded; folded = strings.HasPrefix(text, "\t") {
		_, text, ours = strings.Cut(text, "\r\n")
	}
	if !ours {
		t.Fatalf("no Received field on top of %q", m.Data)
	}
	return text
}

func TestSession(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("RCPT TO:<second@server.example>", "250")
	c.cmd("DATA", "354")
	c.send("Subject: test\r\n\r\nHello\r\n..dot\r\n.\r\n")
	c.expect("250 2.0.0 Ok: queued as B")
	c.cmd("NOOP", "250")
	c.cmd("QUIT", "221")
	c.expectEnd()
	got := b.Messages()
	if len(got) != 1 || got[0].From != "<from@client.example>" || fmt.Sprint(got[0].To) != "[<to@server.example> <second@server.example>]" {
		t.Fatalf("the next hop got %+v", got)
	}
	if text := body(t, got[0]); text != "Subject: test\r\n\r\nHello\r\n.dot\r\n" {
		t.Errorf("content arrived as %q", text)
	}
	for _, want := range []string{"from client.example ([127.0.0.1])", "by proxy.example (Postern) with ESMTP id "} {
		if !strings.Contains(got[0].Data, want) {
			t.Errorf("no %q in %q", want, got[0].Data)
		}
	}
}

func TestSessionPipelined(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	for range 3 {
		c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nDATA\r\n")
		for _, want := range []string{"250", "250", "250", "354"} {
			c.expect(want)
		}
		c.send(smallMessage + "NOOP\r\n")
		c.expect("250 2.0.0 Ok: queued")
		c.expect("250 2.0.0 Ok")
	}
	if n := len(b.Messages()); n != 3 || b.Opened() != 1 {
		t.Errorf("%d messages over %d connections, want 3 over 1", n, b.Opened())
	}
}

func TestRefusedRecipients(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "RCPT" && strings.Contains(a.Line, "bad") {
			return "550 5.1.1 No such user"
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<bad@d.example>\r\nRCPT TO:<good@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "550 5.1.1 No such user", "250", "354"} {
		c.expect(want)
	}
	c.send(smallMessage)
	c.expect("250")
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<bad@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "550", "554"} {
		c.expect(want)
	}
	c.cmd("RSET", "250")
	if m := b.Messages(); len(m) != 1 || fmt.Sprint(m[0].To) != "[<good@d.example>]" {
		t.Errorf("got %+v", m)
	}
}

func TestRefusedSender(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "MAIL" && strings.Contains(a.Line, "bad") {
			return "553 5.1.8 Bad sender"
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<bad@b.example>", "250") // nobody has asked the server yet
	c.cmd("RCPT TO:<c@d.example>", "553 5.1.8 Bad sender")
	c.cmd("DATA", "554")
	c.cmd("RSET", "250")
	c.send("MAIL FROM:<bad@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for _, want := range []string{"553 5.1.8 Bad sender", "553", "554"} {
		c.expect(want)
	}
	c.cmd("RCPT TO:<c@d.example>", "503")
	c.cmd("MAIL FROM:<good@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "250")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestUpstreamDown(t *testing.T) {
	t.Parallel()
	p := startProxy(t, fmt.Sprintf("--upstream=smtp://127.0.0.1:%d", testenv.FreePort(t)))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "451 4.4.1")
	c.cmd("DATA", "554")
	c.cmd("RSET", "250")
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "451", "554"} {
		c.expect(want)
	}
	c.cmd("QUIT", "221")
}

// TestUpstreamDiesWithinTransaction has the server hang up in each moment: no 2xx comes of it, INV-05.
func TestUpstreamDiesWithinTransaction(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"MAIL", "RCPT", "DATA", "."} {
		t.Run(verb, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string {
				if a.Verb == verb {
					return "close"
				}
				return ""
			})
			p := startProxy(t, behind(b))
			c := greeted(t, p.addr)
			c.cmd("MAIL FROM:<a@b.example>", "250")
			switch verb {
			case "MAIL", "RCPT":
				c.cmd("RCPT TO:<c@d.example>", "451")
				c.cmd("RCPT TO:<e@d.example>", "451")
				c.cmd("DATA", "451")
			case "DATA", ".":
				c.cmd("RCPT TO:<c@d.example>", "250")
				c.cmd("DATA", "354")
				c.send(smallMessage)
				c.expect("451")
			}
			c.cmd("RCPT TO:<c@d.example>", "503")
			c.cmd("NOOP", "250")
			if n := len(b.Messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestUTF8NotForOthers: a server that knows no SMTPUTF8 does not get such mail because it stands in for one that does.
func TestUTF8NotForOthers(t *testing.T) {
	t.Parallel()
	first, second := testenv.StartBackend(t), testenv.StartBackend(t)
	second.Extend("PIPELINING")
	p := startProxy(t, behind(first), behind(second))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<gr\xc3\xbcn@b.example> SMTPUTF8", "250")
	first.Close()
	c.cmd("RCPT TO:<c@d.example>", "451 4.6.7")
	c.cmd("DATA", "554")
	if n := transactions(second); n != 0 {
		t.Errorf("the second server saw %q", second.Commands())
	}
	c.cmd("RSET", "250")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "250")
}

func TestClientVanishesInData(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: half\r\n\r\nhalf a message\r\n")
	c.Close()
	testenv.Eventually(t, "the session ends", func() bool { return p.sessionCount() == 0 })
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages reached the server", n)
	}
	if !strings.Contains(p.log.String(), `outcome="client left"`) {
		t.Error("the log does not tell that the client left")
	}
}

func TestDroppathAndHops(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--droppath", "--max-hops=3")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Received: from a\r\n\tby b\r\nSubject: x\r\nreceived: c\r\nReceived-SPF: pass\r\nX-Received: y\r\n\r\nReceived: in the body\r\n.\r\n")
	c.expect("250")
	want := "Subject: x\r\nReceived-SPF: pass\r\nX-Received: y\r\n\r\nReceived: in the body\r\n"
	if m := b.Messages(); len(m) != 1 || m[0].Data != want {
		t.Errorf("got %+v, want %q", m, want)
	}
	c.envelope()
	c.cmd("DATA", "354")
	c.send(strings.Repeat("Received: x\r\n", 4) + "\r\n.\r\n")
	c.expect("554 5.4.6")
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Received: only\r\n\r\n.\r\n")
	c.expect("250")
	if m := b.Messages(); len(m) != 2 || m[1].Data != "\r\n" {
		t.Errorf("got %+v, want an empty line", m)
	}
}

func TestStatusFile(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	p := startProxy(t, behind(b), "--statdir", dir, "--client-lookup=no")
	c := greeted(t, p.addr)
	files, err := filepath.Glob(filepath.Join(dir, "smtp-proxy-*.stat"))
	if err != nil || len(files) != 1 {
		t.Fatalf("status files: %v, %v", files, err)
	}
	testenv.Eventually(t, "status shows the greeting", func() bool {
		return strings.HasSuffix(readFile(t, files[0]), " EHLO client.example\n")
	})
	c.envelope()
	line := readFile(t, files[0])
	words := strings.Fields(line)
	if len(words) < 11 || words[0] != "smtp-proxy" || words[5] != "127.0.0.1" || words[7] != b.Addr || !strings.HasSuffix(line, " RCPT <to@server.example>\n") {
		t.Errorf("status line is %q", line)
	}
	c.cmd("QUIT", "221")
	c.expectEnd()
	testenv.Eventually(t, "status file is removed", func() bool {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		return len(files) == 0
	})
}

// TestServerRefusesData: the client was told 354 while the server made up its mind, and gets the
// refusal behind its content, of which the server sees nothing. The connection stays in step.
func TestServerRefusesData(t *testing.T) {
	t.Parallel()
	for _, content := range []string{smallMessage, ".\r\n"} {
		b := testenv.StartBackend(t)
		refuse := true
		b.Answer(func(a testenv.Asked) string {
			if a.Verb == "DATA" && refuse {
				refuse = false
				return "452 4.3.1 Disk is full"
			}
			return ""
		})
		p := startProxy(t, behind(b))
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd("DATA", "354")
		c.send(content)
		c.expect("452 4.3.1 Disk is full")
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
		c.cmd("QUIT", "221")
		if n, sessions := len(b.Messages()), b.Opened(); n != 1 || sessions != 1 {
			t.Errorf("%d messages in %d sessions of the server, want 1 in 1", n, sessions)
		}
	}
}

// TestServerRefusesDataForNow: a client whose message is larger than what is thrown away of a refused one is not told
// that the message is too large. Nobody has set a limit, and it may well pass another time.
func TestServerRefusesDataForNow(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING")
	b.Answer(func(a testenv.Asked) string { return onVerb(a, "DATA", "451 4.7.1 Come back later") })
	p := startProxy(t, behind(b), "--max-message-size=0")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n")
	line := strings.Repeat("x", 1022) + "\r\n"
	for range discardMost >> 20 {
		c.send(strings.Repeat(line, 1<<10))
	}
	c.expect("451 4.7.1 Come back later")
	c.expectEnd()
}

// TestServerLeavesWithinContent: 421 of the server is told with our name, once, and it is not the filter that said it.
func TestServerLeavesWithinContent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan bool)
	go func() {
		defer l.Close()
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		for text := "220 server\r\n"; ; text = "250 Ok\r\n" {
			io.WriteString(nc, text)
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "DATA\r\n" {
				break
			}
		}
		io.WriteString(nc, "354 Go on\r\n")
		r.ReadString('\n')
		io.WriteString(nc, "421 4.3.2 Bye\r\n")
		close(left)
		io.Copy(io.Discard, r)
	}()
	p := startProxy(t, "--upstream=smtp://"+l.Addr().String())
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 1000)) // so much goes on at once
	testenv.Receive(t, "the 421 of the server", left)
	c.send(".\r\n")
	c.expect("421 4.3.2 proxy.example Bye")
	c.expectEnd()
	if log := p.log.String(); strings.Contains(log, "gate=filter") {
		t.Errorf("the filter is said to have refused the message:\n%s", log)
	}
}

// TestAuthedResetWithinContent: the server of a session that is authenticated cannot be reset while it waits for
// content, nor while its reply to DATA is due, and nothing else of the session goes there.
func TestAuthedResetWithinContent(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	over := make(chan bool)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "DATA" {
			<-over // whoever waits for the reply waits for ever
		}
		return ""
	})
	defer close(over)
	p := startProxy(t, behind(b), "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AGEAYg==", "235")
	c.envelope()
	c.cmd("BDAT 0", "250")
	c.cmd("RSET", "250")
	c.expectEnd()
	if log := p.log.String(); strings.Contains(log, "misuse") {
		t.Errorf("commands went on to a server that waited for content:\n%s", log)
	}
}

// TestAuthedClientLeaves: a session whose client is gone does not wait for its server.
func TestAuthedClientLeaves(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "RSET" && transactions(b) > 0 {
			return "hang"
		}
		return ""
	})
	p := startProxy(t, behind(b), "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AGEAYg==", "235")
	c.envelope()
	c.Close()
	testenv.Eventually(t, "the end of the session", func() bool { return p.sessionCount() == 0 })
}
