package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/config"
	"postern/internal/testenv"
	"runtime/debug"
)

// TestNothingIsLeft looks whether goroutines and descriptors go back to what they were: INV-07, RES-10.
func TestNothingIsLeft(t *testing.T) {
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	work := func() {
		var clients []*testenv.Task
		for range 20 {
			clients = append(clients, testenv.Play(t, "a client", func(t testing.TB) {
				for i := range 5 {
					c := greeted(t, p.addr)
					c.envelope()
					if i%2 == 0 {
						c.Close()
						continue
					}
					c.cmd("DATA", "354")
					c.send(smallMessage)
					c.expect("250")
					c.Close()
				}
			}))
		}
		for _, c := range clients {
			c.Wait()
		}
		testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
	}
	work()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for range 3 {
		work()
	}
	// Each connection to the next hop has a goroutine of the backend; some more may be kept now.
	testenv.Eventually(t, "goroutines and descriptors go back", func() bool {
		kept := p.ups.Stats()[0].Idle
		return runtime.NumGoroutine() <= goroutines+kept && descriptors(t) <= files+2*kept
	})
}

// TestNothingIsLeftOfAnybody has clients do anything, in any order, and leave at any moment, in front of a server and
// a filter that do the like: INV-07.
func TestNothingIsLeftOfAnybody(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		return map[uint64]string{0: "close", 1: "451 4.0.0 Later", 2: "550 5.0.0 No"}[hash(seed, a.Line)%20]
	})
	pass := scanWith(t, "HX-A b\nRx@y.example\nF\n")
	m := startMultiplexor(t, func(words []string) string {
		switch hash(seed, strings.Join(words, " ")) % 20 {
		case 0:
			return "ok 3\n"
		case 1:
			return "error: no\n"
		case 2:
			return "half an ans"
		case 3:
			return "ok 0 No 550 5.0.0 0\n"
		}
		return pass(words)
	})
	stats := t.TempDir()
	p := startProxy(t, m.args(append(certificate(t, t.TempDir(), "proxy.example"), behind(b), "--statdir="+stats, "--client-lookup=no", "--max-sessions-per-address=0")...)...)
	work := func(round uint64) {
		var wg sync.WaitGroup
		for i := range uint64(20) {
			wg.Go(func() { anything(p.addr, rand.New(rand.NewPCG(seed+round, i))) })
		}
		wg.Wait()
		testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
	}
	work(0)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for round := range uint64(4) {
		work(1 + round)
	}
	testenv.Eventually(t, "goroutines and descriptors go back", func() bool {
		kept := p.ups.Stats()[0].Idle
		return runtime.NumGoroutine() <= goroutines+kept && descriptors(t) <= files+2*kept
	})
	for _, dir := range []string{m.spool, stats} {
		testenv.Eventually(t, "files are removed", func() bool {
			left, err := os.ReadDir(dir)
			return err == nil && len(left) == 0
		})
	}
	if _, n := p.gates.Limits.Stats(); n != 0 {
		t.Errorf("%d addresses are kept", n)
	}
	b.Forgive() // it hangs up within commands
}

func hash(seed uint64, text string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, text)
	return h.Sum64()
}

// anything is a client that knows what SMTP looks like, and no more.
func anything(addr string, random *rand.Rand) {
	nc, err := testenv.Connect("tcp", addr)
	if err != nil {
		return
	}
	defer nc.Close()
	_ = testenv.Patient(nc)
	said := []string{
		"EHLO a\r\n", "EHLO a\r\n", "HELO b\r\n", "MAIL FROM:<a@b.example>\r\n", "MAIL FROM:<a@b.example>\r\n", "MAIL FROM:<> SIZE=10\r\n", "RCPT TO:<c@d.example>\r\n",
		"RCPT TO:<c@d.example>\r\n", "RCPT TO:<e@d.example> NOTIFY=NEVER\r\n", "DATA\r\n", "DATA\r\n", "Subject: x\r\n\r\n", "text\r\n.\r\n", ".\r\n", "BDAT 5\r\nabcde", "BDAT 5 LAST\r\nabcde",
		"BDAT 100000\r\n", "RSET\r\n", "NOOP\r\n", "STARTTLS\r\n", "AUTH PLAIN\r\n", "XCLIENT ADDR=1.2.3.4\r\n", "half a li", "\x16\x03\x01", strings.Repeat("z", 5000), "QUIT\r\n",
	}
	buf := make([]byte, 4096)
	for range 1 + random.IntN(25) {
		if _, err := io.WriteString(nc, said[random.IntN(len(said))]); err != nil {
			return
		}
		if random.IntN(3) > 0 {
			_ = testenv.Impatient(nc)
			_, _ = nc.Read(buf)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

func TestRES_01_SessionsOfOneAddress(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-sessions-per-address=3", "--max-rate-per-address=0")
	for range 3 {
		dial(t, p.addr).expect("220")
	}
	c := dial(t, p.addr)
	c.expect("421 4.7.0 proxy.example ")
	c.expectEnd()
	testenv.Eventually(t, "the log tells", func() bool { return strings.Contains(p.log.String(), "gate=address") })
}

func TestRES_02_SessionsOfAll(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-sessions=3")
	var open []*dialog
	for range 3 {
		c := dial(t, p.addr)
		c.expect("220")
		open = append(open, c)
	}
	c := dial(t, p.addr)
	c.expect("421 4.3.2 proxy.example ")
	c.expectEnd()
	open[0].Close()
	testenv.Eventually(t, "a slot is free", func() bool { return p.sessionCount() == 2 })
	dial(t, p.addr).expect("220")
}

func TestRES_03_SlowContent(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--data-timeout=1s")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n")
	c.expect("421 4.4.2 proxy.example ")
	c.expectEnd()
	p = startProxy(t, behind(b), "--message-timeout=1s")
	c = greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	began := time.Now()
	for {
		if _, err := io.WriteString(c, "drip\r\n"); err != nil || time.Since(began) > 10*time.Second {
			break
		}
		if c.r.Buffered() > 0 || readable(c) {
			break
		}
	}
	c.expect("421 4.4.2 proxy.example ")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// readable waits a little for a reply.
func readable(c *dialog) bool {
	_ = testenv.Impatient(c)
	_, err := c.r.Peek(1)
	_ = testenv.Patient(c)
	return err == nil
}

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(1700000000, 0)
	conf := &live{settings: &settings{LimitSettings: LimitSettings{DataTimeout: time.Minute, MessageTimeout: time.Hour, MinDataRate: 100}}}
	p := newPace(conf, start)
	for i := 1; i <= 500; i++ { // far beyond the hour, at a good rate
		if _, err := p.next(start.Add(time.Duration(i)*15*time.Second), int64(i)*1500); err != nil {
			t.Fatalf("after %d pieces: %v", i, err)
		}
	}
	now := start.Add(500*15*time.Second + paceSpan)
	if _, err := p.next(now, 500*1500+2000); err == nil {
		t.Error("2000 bytes in 30 seconds pass for 100 a second")
	}
	conf.MinDataRate = 0
	p = newPace(conf, start)
	if until, err := p.next(start.Add(59*time.Minute+30*time.Second), 1); err != nil || !until.Equal(start.Add(time.Hour)) {
		t.Errorf("deadline %v, %v; want the end of the hour", until, err)
	}
}

// TestPaceStops: a client is not slow because its server is, over DATA or the content.
func TestPaceStops(t *testing.T) {
	t.Parallel()
	for _, rate := range []int64{0, 100} {
		synctest.Test(t, func(t *testing.T) {
			conf := &live{settings: &settings{LimitSettings: LimitSettings{DataTimeout: time.Minute, MessageTimeout: time.Minute, MinDataRate: config.Bytes(rate)}}}
			r := &receiver{out: slowServer{}, pace: newPace(conf, time.Now())}
			if err := (&session{}).take(r, []byte("x\r\n"), 3); err != nil || r.refusal != nil {
				t.Fatalf("%v, refusal %v", err, r.refusal)
			}
			until, err := r.pace.next(time.Now(), r.raw)
			if err != nil || !until.Equal(time.Now().Add(time.Minute)) {
				t.Errorf("rate %d: the client has until %v (%v) at %v, want a minute", rate, until, err, time.Now())
			}
		})
	}
}

// slowServer takes two minutes, of the clock of the test, for whatever it gets: so long nobody reads.
type slowServer struct{}

func (slowServer) Write(p []byte) (int, error) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if err := testenv.Patient(near); err != nil {
		return 0, err
	}
	if _, err := near.Write(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("a write that nobody reads: %w", err)
	}
	return len(p), nil
}

func TestRES_05_MessageFarAboveTheLimit(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "SIZE 100000")
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example> SIZE=100", "250") // a lie
	c.cmd("RCPT TO:<c@d.example>", "250")
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 10000) + ".\r\n")
	c.expect("552 5.3.4")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "250")
	c.cmd("DATA", "354")
	endless := strings.Repeat("0123456789abcdef\r\n", 60000)
	must(t, testenv.Patient(c))
	sent := 0
	for {
		n, err := io.WriteString(c, endless)
		if sent += n; err != nil {
			break
		}
		if sent > 2*discardMost {
			t.Fatalf("%d bytes were taken after the limit", sent)
		}
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestRES_06_FullDisk has a small disk for working directories, which gets full, in blocks and in files, and empty
// again.
func TestRES_06_FullDisk(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	if err := syscall.Mount("tmpfs", m.spool, "tmpfs", 0, "size=512k,nr_inodes=30,mode=0700"); err != nil {
		testenv.LeaveOut(t, "full disk", err.Error())
	}
	t.Cleanup(func() { must(t, syscall.Unmount(m.spool, 0)) })
	p := startProxy(t, m.args(behind(b))...)
	c := greeted(t, p.addr)
	small := func() {
		t.Helper()
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	for range 2 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send("Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100000) + ".\r\n")
		c.expect("452 4.3.1")
		small() // the large one left nothing behind
	}
	var made []string
	for {
		f, err := os.CreateTemp(m.spool, "other")
		if err != nil {
			break
		}
		made = append(made, f.Name())
		f.Close()
	}
	c.cmd("MAIL FROM:<a@b.example>", "452 4.3.1")
	for _, name := range made {
		must(t, os.Remove(name))
	}
	small()
	if n := len(b.Messages()); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// TestRES_06_SpoolThatIsGone has no directory for working directories.
func TestRES_06_SpoolThatIsGone(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	p := startProxy(t, m.args(behind(b))...)
	must(t, os.RemoveAll(m.spool))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example>", "451 4.3.0")
	must(t, os.Mkdir(m.spool, 0o700))
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
}

// TestRES_10_ManyEmptySessions connects and says nothing, many times: most of it is not worth a line at the usual
// level.
func TestRES_10_ManyEmptySessions(t *testing.T) {
	t.Parallel()
	p := startProxyWith(t, listenSMTP, oneSecond, behind(testenv.StartBackend(t)))
	for range 500 {
		c := dial(t, p.addr)
		c.expect("220")
		c.Close()
	}
	testenv.Eventually(t, "sessions end", func() bool { return p.sessionCount() == 0 })
	if n := strings.Count(p.log.String(), "msg=session "); n > 20 || n == 0 {
		t.Errorf("%d lines within a second", n)
	}
	if _, n := p.gates.Limits.Stats(); n != 0 {
		t.Errorf("%d addresses are kept", n)
	}
}

func TestRES_07_NoFilterIsFree(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := testenv.ShortDir(t)
	p := startProxy(t, behind(b), "--multiplexor", dir+"/nobody", "--spool", dir)
	c := dial(t, p.addr)
	c.expect("421 4.3.2 proxy.example No filter is free")
	c.expectEnd()
	if n := b.Opened(); n != 0 {
		t.Errorf("the next hop was connected to %d times", n)
	}
}

// TestLOG_01_HostileTextsInTheLog looks at what hostile texts become in the log.
func TestLOG_01_HostileTextsInTheLog(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onVerb(a, ".", "554 5.7.1 no\x1b[2J"+strings.Repeat("x", 30000)) })
	p := startProxy(t, behind(b), "--address-check=off")
	c := greeted(t, p.addr)
	c.cmd(`MAIL FROM:<"a`+"\xc2\x9b"+`31m"@b.example> SMTPUTF8`, "250")
	c.cmd("RCPT TO:<c@d.example>", "250")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("554")
	c.cmd("QUIT", "221")
	testenv.Eventually(t, "the session is logged", func() bool { return strings.Contains(p.log.String(), "msg=session ") })
	for line := range strings.Lines(p.log.String()) {
		if strings.ContainsAny(line, "\x1b\x00") || strings.Contains(line, "\xc2\x9b") || len(line) > 2000 {
			t.Errorf("log line of %d bytes: %.300q", len(line), line)
		}
	}
	b.Forgive()
}

// TestLargeMessageStreams sends more than the proxy may keep.
func TestLargeMessageStreams(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	got := make(chan int64, 1)
	go func() { got <- swallow(l) }()
	defer l.Close()
	p := startProxy(t, "--upstream=smtp://"+l.Addr().String(), "--max-message-size=0")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	piece := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 800)
	before := memory()
	const pieces = 3000 // 192 MB
	for i := range pieces {
		c.send(piece)
		if i == pieces/2 {
			if grown := memory() - before; grown > 32<<20 {
				t.Errorf("memory grew by %d bytes", grown)
			}
		}
	}
	c.send(".\r\n")
	c.expect("250")
	if n := testenv.Receive(t, "the end of the message", got); n < int64(pieces*len(piece)) {
		t.Errorf("%d bytes arrived", n)
	}
}

// swallow is an SMTP server that counts the content of one message.
func swallow(l net.Listener) int64 {
	for {
		nc, err := l.Accept()
		if err != nil {
			return 0
		}
		fmt.Fprint(nc, "220 x\r\n")
		buf := make([]byte, 1<<20)
		var n int64
		for content, tail := false, ""; ; {
			k, err := nc.Read(buf)
			if err != nil {
				break
			}
			if content {
				n += int64(k)
				if tail = (tail + string(buf[max(0, k-5):k])); strings.HasSuffix(tail, "\r\n.\r\n") {
					fmt.Fprint(nc, "250 Ok\r\n")
					return n
				}
				tail = tail[max(0, len(tail)-5):]
				continue
			}
			for line := range strings.Lines(string(buf[:k])) {
				if content = line == "DATA\r\n"; content {
					fmt.Fprint(nc, "354 x\r\n")
				} else {
					fmt.Fprint(nc, "250 x\r\n")
				}
			}
		}
		nc.Close()
	}
}

// memory gives the bytes in use by heap and stacks once garbage is gone.
func memory() int64 {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse + m.MSpanInuse)
}

// TestLOG_05_StatusFileOfAHostileSession looks at the status file of a session with hostile input, and for secrets in
// it.
func TestLOG_05_StatusFileOfAHostileSession(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	dir := t.TempDir()
	p := startProxy(t, behind(b), "--statdir", dir, "--client-lookup=no", "--auth-requires-tls=no", "--address-check=off", "--max-errors=100")
	c := greeted(t, p.addr)
	c.cmd("AUTH PLAIN AHVzZXIAc2VjcmV0", "235")
	for _, line := range []string{"EHLO gr\xc3\xbcn%20a", `MAIL FROM:<"a b\" c"@d.example>`, "RCPT TO:<" + strings.Repeat("x", 200) + "@d.example>"} {
		c.cmd(line, "250")
		files, err := os.ReadDir(dir)
		must(t, err)
		if len(files) != 1 {
			t.Fatalf("%d status files", len(files))
		}
		text := readFile(t, dir+"/"+files[0].Name())
		status, ok := strings.CutSuffix(text, "\n")
		words := strings.Split(status, " ")
		if !ok || strings.ContainsFunc(status, func(r rune) bool { return r < ' ' || r > '~' }) || len(words) < 11 || words[0] != programName || strings.Contains(text, "c2Vjcm") {
			t.Errorf("status %q", text)
		}
	}
}

// TestRES_11_ReloadUnderLoad reads settings again all the time while messages go through.
func TestRES_11_ReloadUnderLoad(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	args := []string{behind(b), "--max-message-size=100000"}
	p := startProxy(t, args...)
	var stop atomic.Bool
	reloading := testenv.Play(t, "reloads", func(t testing.TB) {
		for !stop.Load() {
			p.use(&live{settings: parseSettings(t, args...)})
		}
	})
	var sending []*testenv.Task
	for range 10 {
		sending = append(sending, testenv.Play(t, "a client", func(t testing.TB) {
			c := greeted(t, p.addr)
			for range 20 {
				c.envelope()
				c.cmd("DATA", "354")
				c.send(smallMessage)
				c.expect("250")
			}
			c.cmd("QUIT", "221")
		}))
	}
	for _, s := range sending {
		s.Wait()
	}
	stop.Store(true)
	reloading.Wait()
	if n := len(b.Messages()); n != 200 {
		t.Errorf("%d messages arrived, want 200", n)
	}
}
