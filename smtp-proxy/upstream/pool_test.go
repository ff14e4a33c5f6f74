package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/testenv"
)

// A kept connection is used again, with RSET in front, in the same flush as what follows.
func TestReuse(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}})
	for range 3 {
		c := get(t, set, Client{})
		if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
			t.Fatalf("code %d", code)
		}
		c.Release()
		if c.stream.r != nil || c.stream.out != nil || c.due != nil {
			t.Error("an idle connection holds buffers")
		}
	}
	one := []string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA", "end of data"}
	want := slices.Concat([]string{"EHLO localhost"}, one, []string{"RSET"}, one, []string{"RSET"}, one)
	if got := p.lines(); !slices.Equal(got, want) {
		t.Errorf("server heard %q, want %q", got, want)
	}
	if p.count() != 1 {
		t.Errorf("%d connections, want 1", p.count())
	}
}

func TestReuseWithoutPipelining(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) { c.serve(replies{ehlo: "250 peer.test\r\n"}) })
	set := newSet(t, Config{URLs: []string{p.url()}})
	get(t, set, Client{}).Release()
	c := get(t, set, Client{})
	defer c.Release()
	if !p.told("RSET") || p.count() != 1 {
		t.Errorf("server heard %q on %d connections", p.lines(), p.count())
	}
}

// A transaction that is open when the connection is given back is ended.
func TestReleaseResets(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}})
	c := get(t, set, Client{})
	say(t, c, envelope[:2], 250, 250)
	c.Release()
	if lines := p.lines(); lines[len(lines)-1] != "RSET" || set.Stats()[0].Idle != 1 {
		t.Errorf("server heard %q; %+v", lines, set.Stats())
	}
	c.Release() // a second time does nothing
	c.Abort()
	if set.Stats()[0].Idle != 1 {
		t.Errorf("%+v", set.Stats())
	}
}

// What one session was refused does not make the server slow for another one; a message makes up for it.
func TestNoReuseAfterRefusals(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Line == "RCPT TO:<no@b.test>" {
			return "550 5.1.1 Unknown"
		}
		return ""
	})
	set := newSet(t, Config{URLs: []string{"smtp://" + b.Addr}})
	for _, message := range []bool{true, false, false} {
		c := get(t, set, Client{})
		say(t, c, []string{"MAIL FROM:<a@a.test>"}, 250)
		for range mostRefused {
			say(t, c, []string{"RCPT TO:<no@b.test>"}, 550)
		}
		if message {
			say(t, c, []string{"RSET"}, 250)
			if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
				t.Fatalf("code %d", code)
			}
		}
		c.Release()
	}
	if n := b.Opened(); n != 2 {
		t.Errorf("%d connections, want 2: one with a message before the last refusals, one with refusals only", n)
	}
}

func TestNoReuse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		r    replies
		use  func(t *testing.T, c *Conn)
	}{
		{"after AUTH", replies{other: "235 2.7.0 Welcome\r\n"}, func(t *testing.T, c *Conn) {
			say(t, c, []string{"AUTH PLAIN AGEAYQ=="}, 235)
		}},
		{"after AUTH that failed", replies{other: "535 5.7.8 No\r\n"}, func(t *testing.T, c *Conn) {
			say(t, c, []string{"AUTH PLAIN AGEAYQ=="}, 535)
		}},
		{"after 421", replies{mail: "421 4.3.2 Bye\r\n"}, func(t *testing.T, c *Conn) {
			say(t, c, envelope[:1], 421)
		}},
		{"after QUIT", replies{}, func(t *testing.T, c *Conn) { say(t, c, []string{"QUIT"}, 221) }},
		{"after as many messages as the server takes", replies{ehlo: "250-a\r\n250 LIMITS MAILMAX=1\r\n"}, func(t *testing.T, c *Conn) {
			send(t, c, "a@a.test", "b@b.test", "x\r\n")
		}},
		{"RSET refused", replies{rset: "500 what\r\n"}, func(t *testing.T, c *Conn) { say(t, c, envelope[:1], 250) }},
		{"reply is due", replies{}, func(t *testing.T, c *Conn) {
			c.Command("NOOP")
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
		}},
		{"command not sent", replies{}, func(t *testing.T, c *Conn) { c.Command("NOOP") }},
		{"within content", replies{}, func(t *testing.T, c *Conn) { say(t, c, envelope, 250, 250, 354) }},
		{"end of data without reply", replies{}, func(t *testing.T, c *Conn) {
			say(t, c, envelope, 250, 250, 354)
			if err := c.EndContent(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startPeer(t, func(c *peerConn) { c.serve(test.r) })
			set := newSet(t, Config{URLs: []string{p.url()}})
			c := get(t, set, Client{})
			test.use(t, c)
			unusable(t, set, c)
		})
	}
}

// An AUTH dialog goes through line by line; 334 is a reply to its lines and to nothing else.
func TestAuthDialog(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) {
		c.say("220 a\r\n")
		c.line()
		c.say("250-a\r\n250 AUTH LOGIN\r\n")
		c.line()
		c.say("334 VXNlcm5hbWU6\r\n")
		c.line()
		c.say("334 UGFzc3dvcmQ6\r\n")
		c.line()
		c.say("235 2.7.0 Ok\r\n")
		c.line()
		c.say("334 what\r\n")
	})
	set := newSet(t, Config{URLs: []string{p.url()}})
	c := get(t, set, Client{})
	for _, step := range []struct {
		line string
		code int
	}{{"AUTH LOGIN", 334}, {"dXNlcg==", 334}, {"bWFpbA==", 235}} {
		say(t, c, []string{step.line}, step.code)
	}
	c.Command("MAIL FROM:<a@b>")
	_, err := c.Reply(testenv.Patience)
	failed(t, err, 451, "4.3.0")
	unusable(t, set, c)
}

// A reply other than 2xx to the RSET in front is no reply to the command behind it.
func TestReuseRefused(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) { c.serve(replies{rset: "421 4.4.2 Too late\r\n"}) })
	set := newSet(t, Config{URLs: []string{p.url()}})
	get(t, set, Client{}).Release()
	c := get(t, set, Client{})
	c.Command(envelope[0])
	_, err := c.Reply(testenv.Patience)
	failed(t, err, 451, "4.3.0")
	unusable(t, set, c)
}

func TestIdleTime(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}, IdleTime: second / 20})
	a, b := get(t, set, Client{}), get(t, set, Client{})
	a.Release()
	b.Release()
	if n := set.Stats()[0].Idle; n != 2 {
		t.Errorf("%d idle connections, want 2", n)
	}
	testenv.Eventually(t, "idle connections are closed", func() bool { return set.Stats()[0].Open == 0 })
}

// Connections that are in order are ended with QUIT, others are not: what would be read as a command must not go
// into the middle of something.
func TestQuit(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}})
	c := get(t, set, Client{})
	say(t, c, envelope, 250, 250, 354)
	c.Release()
	get(t, set, Client{}).Release()
	set.Close()
	waitFor(t, p, "QUIT")
	p.stop()
	n := 0
	for _, line := range p.lines() {
		if line == "QUIT" {
			n++
		}
	}
	if n != 1 || p.count() != 2 {
		t.Errorf("%d QUIT on %d connections: %q", n, p.count(), p.lines())
	}
}

func TestMaxAgeAndMaxIdle(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}, MaxAge: time.Nanosecond})
	unusable(t, set, get(t, set, Client{}))
	set = newSet(t, Config{URLs: []string{p.url()}, MaxIdle: 1})
	a, b := get(t, set, Client{}), get(t, set, Client{})
	a.Release()
	b.Release()
	if s := set.Stats()[0]; s.Idle != 1 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
}

// A server that closed an idle connection costs nothing: a new one is opened.
func TestIdleHungUp(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}})
	get(t, set, Client{}).Release()
	p.mu.Lock()
	_ = p.conns[0].Close()
	p.mu.Unlock()
	s := set.servers[0]
	testenv.Eventually(t, "the end arrives", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.kept[0].stream.quiet() != nil
	})
	c := get(t, set, Client{})
	defer c.Release()
	if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
		t.Errorf("code %d", code)
	}
}

// deadAddress gives an address where nobody listens.
func deadAddress(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// With several servers the next one is taken when one is down, and the first one again when it is back.
func TestFailover(t *testing.T) {
	t.Parallel()
	dead := deadAddress(t)
	p := startPeer(t, good)
	refuses := startPeer(t, func(c *peerConn) { c.say("421 not now\r\n") })
	set := newSet(t, Config{URLs: []string{"smtp://" + dead, refuses.url(), p.url()}, RetryTime: 10 * time.Millisecond})
	for range 4 {
		c := get(t, set, Client{})
		if c.Server() != p.url() {
			t.Errorf("connection is to %s", c.Server())
		}
		c.Release()
	}
	if n := refuses.count(); n > 4 || n < 2 {
		t.Errorf("the server that refuses was asked %d times", n)
	}
	l, err := net.Listen("tcp4", dead)
	if err != nil {
		t.Fatal(err)
	}
	back := servePeer(t, l, good)
	testenv.Eventually(t, "the first server is used again", func() bool {
		c := get(t, set, Client{})
		defer c.Release()
		return c.Server() == back.url()
	})
}

// RES-08: a server that is down is not asked by every session, and says so at once; one try at a time shows
// that it is back.
func TestRES_08_ServerThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) { c.say("421 not now\r\n") })
	set := newSet(t, Config{URLs: []string{p.url()}, RetryTime: time.Hour})
	for range 50 {
		getError(t, set, Client{})
	}
	if n := p.count(); n != 2 {
		t.Errorf("%d connections to a server that is down, want 2", n)
	}
	if !set.Stats()[0].Shut {
		t.Error("the server is not left alone")
	}
	var b breaker
	now := time.Now()
	for range 20 { // sessions that were under way together
		b.failure(now, 10*time.Second)
	}
	if b.pause != firstPause {
		t.Errorf("pause is %v after one blip, want %v", b.pause, firstPause)
	}
	for range 5 {
		now = now.Add(11 * time.Second)
		if !b.allow(now) {
			t.Fatal("nobody may try")
		}
		b.failure(now, 10*time.Second)
	}
	if b.pause != 10*time.Second || b.allow(now.Add(9*time.Second)) {
		t.Errorf("pause is %v", b.pause)
	}
	later := now.Add(11 * time.Second)
	if one, more := b.allow(later), b.allow(later); !one || more {
		t.Error("one session may try, not more")
	}
	b.success()
	for range 2 {
		if !b.allow(later) {
			t.Error("a server that works is open to all")
		}
	}
}

// RES-08: a server that takes no new connections is used over those that there are; and when it takes new ones again, all
// sessions get one, though the first ones to come found kept connections.
func TestRES_08_KeptConnectionsServeOn(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	p := startPeer(t, func(c *peerConn) {
		if refuse.Load() {
			c.say("421 not now\r\n")
			return
		}
		good(c)
	})
	set := newSet(t, Config{URLs: []string{p.url()}, RetryTime: second / 10})
	held := get(t, set, Client{})
	refuse.Store(true)
	for !set.servers[0].breaker.shut(time.Now()) {
		getError(t, set, Client{})
	}
	held.Release()
	for range 5 {
		c := get(t, set, Client{})
		if code, _ := send(t, c, "a@a.test", "b@b.test", "x\r\n"); code != 250 {
			t.Errorf("code %d", code)
		}
		getError(t, set, Client{}) // there is but one
		c.Release()
	}
	refuse.Store(false)
	testenv.Eventually(t, "new connections", func() bool {
		one := get(t, set, Client{})
		defer one.Release()
		two, err := set.Get(t.Context(), Client{})
		if err != nil {
			return false
		}
		two.Release()
		return true
	})
	if s := set.Stats()[0]; s.Shut {
		t.Errorf("still left alone: %+v", s)
	}
}

// RES-08: nobody waits longer for a server than the settings, or the caller's context, say.
func TestRES_08_NobodyWaitsBeyondTheDeadlines(t *testing.T) {
	t.Parallel()
	silent := startPeer(t, func(c *peerConn) { c.line() })
	for _, test := range []struct {
		name string
		conf Config
		ctx  func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"greeting", Config{HelloTimeout: second / 10}, context.WithCancel},
		{"context", Config{HelloTimeout: time.Hour}, testenv.Soon},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.conf.URLs = []string{silent.url()}
			set := newSet(t, test.conf)
			ctx, cancel := test.ctx(context.Background())
			defer cancel()
			if err := testenv.Go(t, "Get", func() error { _, err := set.Get(ctx, Client{}); return err }).Err(); err == nil {
				t.Error("no error")
			}
			if set.Stats()[0].Open != 0 {
				t.Error("a connection is left")
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		set := newSet(t, Config{URLs: []string{silent.url()}})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(second/20, cancel)
		if _, err := set.Get(ctx, Client{}); err == nil {
			t.Error("no error")
		}
		if set.servers[0].breaker.fails != 0 {
			t.Error("that the caller went away is no fault of the server")
		}
	})
	t.Run("a server that does not read", func(t *testing.T) {
		p := startPeer(t, func(c *peerConn) {
			c.say("220 a\r\n")
			c.line()
			c.say(goodEhlo)
			for range 3 {
				c.line()
			}
			c.say("250 a\r\n250 b\r\n354 c\r\n")
			select {}
		})
		t.Cleanup(func() { p.wg.Done() }) // its handler never ends
		set := newSet(t, Config{URLs: []string{p.url()}, WriteTimeout: second / 10})
		c := get(t, set, Client{})
		say(t, c, envelope, 250, 250, 354)
		var err error
		for range 1000 {
			if _, err = c.Content().Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		failed(t, err, 451, "4.4.2")
		unusable(t, set, c)
	})
}

// RES-08: no more connections to a server than allowed; who waits gets the next one, or 451 in time.
func TestRES_08_ConnectionsToAServerAreLimited(t *testing.T) {
	t.Parallel()
	p := startPeer(t, good)
	set := newSet(t, Config{URLs: []string{p.url()}, MaxConns: 3})
	var wg sync.WaitGroup
	var inUse atomic.Int32
	for range 30 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
			defer cancel()
			c, err := set.Get(ctx, Client{})
			if err != nil {
				t.Error(err)
				return
			}
			c.Command("NOOP")
			if _, err := c.Reply(testenv.Patience); err != nil {
				t.Error(err)
			}
			if n := inUse.Add(1); n > 3 {
				t.Errorf("%d connections at a time, want at most 3", n)
			}
			inUse.Add(-1)
			if c.born.Nanosecond()%2 == 0 {
				c.Abort()
			} else {
				c.Release()
			}
		})
	}
	wg.Wait()
	if n := set.Stats()[0].Open; n > 3 {
		t.Errorf("%d connections are open, want at most 3", n)
	}
	full := newSet(t, Config{URLs: []string{p.url()}, MaxConns: 1, ConnectTimeout: second / 10, RetryTime: time.Millisecond})
	var c *Conn
	testenv.Eventually(t, "a connection in that time", func() (ok bool) {
		var err error
		c, err = full.Get(t.Context(), Client{})
		return err == nil
	})
	defer c.Release()
	r, err := getError(t, full, Client{})
	if r.Enhanced != "4.3.2" || !errors.Is(err, errBusy) {
		t.Errorf("got %v, %v", r, err)
	}
	if full.servers[0].breaker.fails != 0 {
		t.Error("a busy server counts as one that fails")
	}
}

// Capabilities are asked for once, by one of many, and brought up to date by every connection.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	p := startPeer(t, func(c *peerConn) {
		if c.n == 0 {
			c.serve(replies{ehlo: "250-a\r\n250 SIZE 1\r\n"})
			return
		}
		c.serve(replies{ehlo: "250-a\r\n250 SIZE 2\r\n"})
	})
	set := newSet(t, Config{URLs: []string{p.url()}})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if caps, err := set.Capabilities(context.Background()); err != nil || caps.Size != 1 || !caps.HasSize {
				t.Errorf("%+v, %v", caps, err)
			}
		})
	}
	wg.Wait()
	if p.count() != 1 {
		t.Errorf("%d connections, want 1", p.count())
	}
	a, b := get(t, set, Client{}), get(t, set, Client{})
	a.Release()
	b.Release()
	if caps, err := set.Capabilities(context.Background()); err != nil || caps.Size != 2 {
		t.Errorf("not brought up to date: %+v, %v", caps, err)
	}
	set.conf.FreshTime = time.Nanosecond
	before := p.count()
	if caps, err := set.Capabilities(context.Background()); err != nil || caps.Size != 2 {
		t.Errorf("%+v, %v", caps, err)
	}
	testenv.Eventually(t, "an old answer is fetched again", func() bool { return p.count() > before })

	down := newSet(t, Config{URLs: []string{"smtp://" + deadAddress(t)}})
	_, err := down.Capabilities(context.Background())
	failed(t, err, 451, "4.4.1")
}

func TestSource(t *testing.T) {
	t.Parallel()
	from := make(chan net.Addr, 1)
	p := startPeer(t, func(c *peerConn) {
		from <- c.RemoteAddr()
		c.serve(replies{})
	})
	set := newSet(t, Config{URLs: []string{p.url()}, Source: netip.MustParseAddr("127.0.0.77")})
	get(t, set, Client{}).Release()
	if got := testenv.Receive(t, "a connection", from).String(); !strings.HasPrefix(got, "127.0.0.77:") {
		t.Errorf("connection came from %s", got)
	}
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"smtp://localhost":            "tcp localhost:25 lmtp=false tls=false",
		"smtp://127.0.0.1:10025/":     "tcp 127.0.0.1:10025 lmtp=false tls=false",
		"smtp://[::1]:26":             "tcp [::1]:26 lmtp=false tls=false",
		"smtp:/run/x":                 "unix /run/x lmtp=false tls=false",
		"smtps://mx.example.org":      "tcp mx.example.org:465 lmtp=false tls=true",
		"lmtp:/run/dovecot/lmtp":      "unix /run/dovecot/lmtp lmtp=true tls=false",
		"lmtp://host":                 "tcp host:24 lmtp=true tls=false",
		"exec:/usr/sbin/sendmail -bs": "exec  lmtp=false tls=false",
		"maildir:/var/mail/x":         "maildir /var/mail/x lmtp=false tls=false",
		"":                            "", "localhost": "", "localhost:25": "", "smtp:localhost": "", "smtp://": "", "smtp://:25": "",
		"smtp://a:b@host": "", "smtp://host:0": "", "smtp://host:65536": "", "smtp://host/path": "", "smtp://host?x": "",
		"smtps:/run/x": "", "exec:": "", "exec:sendmail -bs": "", "maildir:here": "", "http://host": "", "smtp://[::1": "",
	} {
		e, err := parseEndpoint(text)
		got := ""
		if err == nil {
			got = strings.Join([]string{e.network, e.address, "lmtp=" + yes(e.lmtp), "tls=" + yes(e.tls)}, " ")
		}
		if got != want {
			t.Errorf("%q: got %q, want %q (%v)", text, got, want, err)
		}
	}
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, conf := range []Config{
		{}, {URLs: []string{"x"}}, {URLs: []string{"smtp://a"}, TLS: "sometimes"}, {URLs: []string{"smtp://a"}, ClientIP: "yes"},
		{URLs: []string{"smtp://a"}, Helo: "a b"}, {URLs: []string{"maildir:/proc/x"}},
	} {
		if set, err := New(conf); err == nil {
			set.Close()
			t.Errorf("%+v is taken", conf)
		}
	}
}

// TestIdleConnectionsMakeRoom has a server greet no more clients than it has processes for: connections that are kept idle
// are closed for one that waits to be greeted, and not kept while it does.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	places := make(chan struct{}, 2)
	p := startPeer(t, func(c *peerConn) {
		places <- struct{}{}
		defer func() { <-places }()
		good(c)
	})
	set := newSet(t, Config{URLs: []string{p.url()}, HurryTime: 100 * time.Millisecond})
	first, second := get(t, set, Client{}), get(t, set, Client{})
	got := make(chan *Conn, 1)
	go func() {
		c, err := set.Get(t.Context(), Client{})
		if err != nil {
			t.Error(err)
		}
		got <- c
	}()
	testenv.Eventually(t, "the third connection", func() bool { return p.count() == 3 })
	first.Release()
	c := testenv.Receive(t, "the third, when the first is closed", got)
	if c != nil {
		c.Release()
	}
	second.Return()
	if s := set.Stats()[0]; s.Idle != 1 {
		t.Errorf("%d idle connections, want 1", s.Idle)
	}
}
