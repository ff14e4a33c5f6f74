package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// chaos is what the clients of TestChaos and its end share.
type chaos struct {
	t       *testing.T
	address string
	kills   atomic.Int64 // of the proxy, counted before each and behind it: while one is under way the number is odd

	over atomic.Bool // the test has ended; nobody reads what clients say now

	mu       sync.Mutex
	outcomes map[string]outcome // of each attempt that sent the end of its message
}

// outcome is what a client learned of one attempt.
type outcome struct {
	code   string // of the last reply, with its enhanced code; "" if the connection broke
	killed bool   // the proxy was killed meanwhile
}

// TestChaos has clients send messages through the proxy while the next hop refuses, stalls, cuts connections at any
// byte and goes away, and while the proxy is told to reload, and is killed and started again. The listening socket is
// passed to it, so that clients wait meanwhile. Every message that was acknowledged must be at the server, whole, and none
// in half. Each attempt to send one is told from the others: it may be at the server without the client's knowing only
// if the connection broke between the server's 250 and the client, by the proxy's or the server's end.
func TestChaos(t *testing.T) {
	t.Parallel()
	const clients = 20
	each := testenv.Load(100, 500)
	backend := newFlakyServer(t)
	socket := testenv.Activate(t, "smtp")
	args := []string{"--config", "/dev/null", "--maxloadavg", "0", "--upstream", "smtp://" + backend.address,
		"--upstream-timeout", "1h", "--log-level", "error", "--max-transactions", "0"}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	start := func() *testenv.Process {
		return testenv.Start(t, socket.Command(testenv.Binary(t, "smtp-proxy"), args...))
	}
	c := &chaos{t: t, address: socket.Addr, outcomes: make(map[string]outcome)}
	p := start()
	t.Cleanup(func() { c.over.Store(true) })
	var running atomic.Int32
	running.Store(int32(clients))
	var tasks []*testenv.Task
	for i := range clients {
		tasks = append(tasks, testenv.Play(t, "a client", func(t testing.TB) {
			defer running.Add(-1)
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for n := range each {
				c.sendUntilAcknowledged(fmt.Sprintf("m-%d-%d", i, n), random)
			}
		}))
	}
	for round := 0; running.Load() > 0; round++ {
		testenv.Eventually(t, "some messages pass", backend.progress(200, &running))
		switch round % 4 {
		case 0:
			p.Stop(syscall.SIGHUP)
		case 1:
			backend.cut()
		case 2:
			c.kills.Add(1)
			p.Stop(syscall.SIGKILL)
			p.Wait()
			c.kills.Add(1)
			p = start()
		case 3:
			backend.away()
		}
	}
	for _, task := range tasks {
		task.Wait()
	}
	// The last one may have been started only now; before it serves, SIGTERM simply ends it.
	testenv.Eventually(t, "the proxy's greeting", func() bool { return greets(c.address) })
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("the proxy ended with status %d", status)
	}
	backend.end()
	c.settle(backend, clients, each)
}

// settle compares what the clients know with what the server has.
func (c *chaos) settle(backend *flakyServer, clients, each int) {
	acknowledged, twice := make(map[string]bool), 0
	lost := map[string]int{} // copies that no client knows of, by the reason
	for attempt, out := range c.outcomes {
		id, _, _ := strings.Cut(attempt, "/")
		got, at := backend.accepted[attempt]
		switch {
		case out.code == "250" && !at:
			c.t.Errorf("%s was acknowledged and is not at the server", attempt)
		case out.code == "250" && acknowledged[id]:
			c.t.Errorf("%s was acknowledged twice", id)
		case out.code == "250":
			acknowledged[id] = true
		case !at:
		case out.code == "" && out.killed:
			lost["the proxy was killed"]++
		case strings.HasPrefix(out.code, "451 4.4.2") && (got.silent || got.conn.broken.Load()):
			lost["the server's connection broke"]++
		default:
			c.t.Errorf("%s is at the server, and the client was told %q (killed %v)", attempt, out.code, out.killed)
		}
		if at && got.copies > 1 {
			c.t.Errorf("%s is at the server %d times", attempt, got.copies)
		}
	}
	for i := range clients {
		for n := range each {
			if id := fmt.Sprintf("m-%d-%d", i, n); !acknowledged[id] {
				c.t.Errorf("%s was not acknowledged", id)
			}
		}
	}
	for attempt := range backend.accepted {
		if _, known := c.outcomes[attempt]; !known {
			c.t.Errorf("%s is at the server, and no client has sent it to its end", attempt)
		}
	}
	for _, n := range lost {
		twice += n
	}
	if len(backend.accepted) != clients*each+twice {
		c.t.Errorf("%d copies at the server, want %d and %d that the client could not know of", len(backend.accepted), clients*each, twice)
	}
	faults := backend.faults.Load()
	if c.kills.Load() == 0 || faults == 0 || backend.cuts.Load() == 0 || twice == 0 {
		c.t.Error("there was no chaos")
	}
	c.t.Logf("%d messages, each acknowledged once; %d copies more, whose 250 did not reach the client: %v; proxy killed %d times, %d faults of the server, %d connections cut",
		clients*each, twice, lost, c.kills.Load()/2, faults, backend.cuts.Load())
}

func (c *chaos) errorf(format string, args ...any) {
	if !c.over.Load() {
		c.t.Errorf(format, args...)
	}
}

// sendUntilAcknowledged sends one message until it is accepted.
func (c *chaos) sendUntilAcknowledged(id string, random *rand.Rand) {
	n := 0
	if !testenv.Poll(testenv.Patience, func() bool {
		n++
		return c.over.Load() || c.try(fmt.Sprintf("%s/%d", id, n), random)
	}) {
		c.errorf("%s did not get through", id)
	}
}

// try makes one attempt, and says whether no further one is to be made.
func (c *chaos) try(id string, random *rand.Rand) (settled bool) {
	a := attempt{id: id, pipelined: random.IntN(2) == 0, chunked: random.IntN(3) == 0}
	a.content = "Subject: " + a.id + "\r\n\r\n" + strings.Repeat(a.id+" 0123456789\r\n", 1+random.IntN(300)) + "END " + a.id + "\r\n"
	before := c.kills.Load()
	code, ended := a.run(c)
	out := outcome{code, c.kills.Load() != before || before%2 == 1}
	if ended {
		c.mu.Lock()
		c.outcomes[a.id] = out
		c.mu.Unlock()
	}
	switch {
	case ended && code == "250":
		return true
	case code == "" && !out.killed:
		c.errorf("%s: the proxy broke the connection by itself", a.id)
		return true
	case code != "" && code[0] == '5':
		c.errorf("%s was refused with %s", a.id, code)
		return true
	}
	return false
}

// attempt is one session that sends one message.
type attempt struct {
	id, content        string
	pipelined, chunked bool
	r                  *bufio.Reader
}

// run gives the reply that ended the attempt, "" if the connection did, and says whether the message was sent to its end.
func (a *attempt) run(c *chaos) (code string, ended bool) {
	nc, err := testenv.Connect("tcp4", c.address)
	if err != nil {
		c.errorf("nobody needs to be turned away: %v", err)
		return "421", false
	}
	defer nc.Close()
	testenv.Patient(nc)
	a.r = bufio.NewReader(nc)
	if code := a.reply(); code != "220" {
		return code, false
	}
	content := "DATA\r\n"
	if a.chunked {
		half := len(a.content) / 2
		content = fmt.Sprintf("BDAT %d\r\n%s", half, a.content[:half])
		a.content = fmt.Sprintf("BDAT %d LAST\r\n%s", len(a.content)-half, a.content[half:])
	} else {
		a.content += ".\r\n"
	}
	batches := [][]string{{"EHLO client.example.org\r\n"}, {"MAIL FROM:<ann@example.org>\r\n"}, {"RCPT TO:<bob@example.net>\r\n"}, {content}}
	if a.pipelined {
		batches = [][]string{batches[0], {batches[1][0], batches[2][0], content}}
	}
	for _, batch := range batches {
		if code := a.say(nc, batch); code != "" {
			return strings.TrimPrefix(code, "broken"), false
		}
	}
	if _, err := nc.Write([]byte(a.content)); err != nil {
		return "", true
	}
	return a.reply(), true
}

// say sends commands in one write and gives the first reply that is not a good one, "broken" if the connection is.
func (a *attempt) say(nc net.Conn, batch []string) string {
	if _, err := nc.Write([]byte(strings.Join(batch, ""))); err != nil {
		return "broken"
	}
	bad := ""
	for range batch {
		code := a.reply()
		if code == "" {
			return "broken"
		}
		if code != "250" && code != "354" && bad == "" {
			bad = code
		}
	}
	return bad
}

// reply gives a reply: the code, and what is behind it unless it is 2xx or 3xx.
func (a *attempt) reply() string {
	for {
		line, err := a.r.ReadString('\n')
		if err != nil {
			return ""
		}
		if len(line) > 3 && line[3] == ' ' {
			if line[0] == '4' || line[0] == '5' {
				return strings.TrimSpace(line)
			}
			return line[:3]
		}
	}
}
