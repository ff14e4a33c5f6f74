package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// TestChaos has clients send messages through the proxy while the server behind refuses, stalls, cuts
// connections and goes away, and the proxy is told to reload, and killed and started again. Every message that
// was acknowledged must be at the server, whole; twice only if an attempt ended in doubt.
func TestChaos(t *testing.T) {
	const clients = 20
	each := 500
	if testing.Short() {
		each = 50
	}
	backend := newFlakyServer(t)
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	args := []string{"--config", "/dev/null", "--maxloadavg", "0", "--smtp", "tcp:" + address, "--upstream", "smtp://" + backend.address,
		"--upstream-timeout", "2s", "--log-level", "error", "--max-transactions", "0"}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	start := func() *testenv.Process {
		return testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), args...))
	}
	p := start()
	var done atomic.Bool
	var wg sync.WaitGroup
	attempts := make([]sync.Map, clients)
	for i := range clients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for n := range each {
				sendUntilAcknowledged(t, address, fmt.Sprintf("m-%d-%d-", i, n), random, &attempts[i])
			}
		})
	}
	go func() {
		wg.Wait()
		done.Store(true)
	}()
	kills := 0
	for round := 0; !done.Load(); round++ {
		testenv.Eventually(t, time.Minute, "some messages pass", backend.progress(200, &done))
		switch round % 4 {
		case 0:
			p.Stop(syscall.SIGHUP)
		case 1:
			backend.cut()
		case 2:
			p.Stop(syscall.SIGKILL)
			p.Wait(10 * time.Second)
			p = start()
			kills++
		case 3:
			backend.away()
		}
	}
	wg.Wait()
	// The last one may have been started only now; before it serves, SIGTERM simply ends it.
	testenv.Eventually(t, time.Minute, "the proxy's greeting", func() bool { return greets(address) })
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(20 * time.Second); status != 0 {
		t.Errorf("the proxy ended with status %d", status)
	}
	copies := backend.copies()
	twice := 0
	for i := range clients {
		for n := range each {
			id := fmt.Sprintf("m-%d-%d-", i, n)
			doubts := 0
			if v, ok := attempts[i].Load(id); ok {
				doubts = v.(int)
			}
			switch got := copies[id]; {
			case got == 0:
				t.Errorf("%s was acknowledged and is not at the server", id)
			case got > 1+doubts:
				t.Errorf("%s is at the server %d times, with %d attempts in doubt", id, got, doubts)
			case got > 1:
				twice++
			}
		}
	}
	t.Logf("%d messages, %d of them twice after a doubt; proxy killed %d times, %d faults of the server", clients*each, twice, kills, backend.faults.Load())
}

// sendUntilAcknowledged sends one message until it is accepted. It counts the attempts whose content was sent
// to its end and whose outcome the client, or the proxy on its behalf, cannot know.
func sendUntilAcknowledged(t *testing.T, address, id string, random *rand.Rand, doubts *sync.Map) {
	body := strings.Repeat(id+"0123456789\r\n", 1+random.IntN(300))
	message := "Subject: " + id + "\r\n\r\n" + body + "END " + id + "\r\n.\r\n"
	for began := time.Now(); ; {
		code, doubt := attempt(address, message)
		if code == "250" {
			return
		}
		if doubt {
			n := 0
			if v, ok := doubts.Load(id); ok {
				n = v.(int)
			}
			doubts.Store(id, n+1)
		}
		if code != "" && code[0] == '5' {
			t.Errorf("%s was refused with %s", id, code)
			return
		}
		if time.Since(began) > 2*time.Minute {
			t.Errorf("%s did not get through", id)
			return
		}
		if code == "" {
			time.Sleep(10 * time.Millisecond) // a client's pause before it connects again
		}
	}
}

// attempt gives the code of the reply that ended it, or nothing if the connection did.
func attempt(address, message string) (code string, doubt bool) {
	nc, err := net.DialTimeout("tcp4", address, 5*time.Second)
	if err != nil {
		return "", false
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(nc)
	read := func() string {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return ""
			}
			if len(line) > 3 && line[3] == ' ' {
				return line[:3]
			}
		}
	}
	if code := read(); code != "220" {
		return code, false
	}
	for _, step := range []struct{ line, want string }{
		{"EHLO client.example.org\r\n", "250"}, {"MAIL FROM:<ann@example.org>\r\n", "250"}, {"RCPT TO:<bob@example.net>\r\n", "250"}, {"DATA\r\n", "354"},
	} {
		if _, err := nc.Write([]byte(step.line)); err != nil {
			return "", false
		}
		if code := read(); code != step.want {
			return code, false
		}
	}
	if _, err := nc.Write([]byte(message)); err != nil {
		return "", true
	}
	code = read()
	return code, code != "250"
}

// flakyServer is an SMTP server that fails in many ways, and keeps what it has accepted.
type flakyServer struct {
	t       *testing.T
	address string
	faults  atomic.Int64
	random  *rand.Rand

	mu       sync.Mutex
	servers  []*testenv.Backend
	accepted map[string]int
	last     int
}

func newFlakyServer(t *testing.T) *flakyServer {
	f := &flakyServer{t: t, random: rand.New(rand.NewPCG(1, 2)), accepted: make(map[string]int)}
	f.listen("127.0.0.1:0")
	return f
}

// listen begins to answer; connections that are open elsewhere are not touched.
func (f *flakyServer) listen(address string) {
	var l net.Listener
	testenv.Eventually(f.t, 20*time.Second, "the server's port is free", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp4", address)
		return err == nil
	})
	f.address = l.Addr().String()
	b := testenv.ServeBackend(f.t, l)
	b.Answer(f.answer)
	f.mu.Lock()
	f.servers = append(f.servers, b)
	f.mu.Unlock()
}

// answer fails one command in a hundred or so.
func (f *flakyServer) answer(a testenv.Asked) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Verb == "." {
		id, ok := wholeMessage(a.Line)
		if !ok {
			f.t.Errorf("half a message came with an end of data: %.100q ... %q", a.Line, a.Line[max(0, len(a.Line)-50):])
		}
		switch f.random.IntN(60) {
		case 0:
			f.faults.Add(1)
			return "close"
		case 1:
			f.faults.Add(1)
			return "451 4.3.0 Not now"
		}
		f.accepted[id]++
		return ""
	}
	switch f.random.IntN(200) {
	case 0:
		f.faults.Add(1)
		return "close"
	case 1:
		f.faults.Add(1)
		return "451 4.3.0 Not now"
	case 2:
		f.faults.Add(1)
		return "421 4.3.2 Busy"
	}
	return ""
}

// wholeMessage gives the id of a message that came to its end.
func wholeMessage(data string) (id string, ok bool) {
	_, rest, _ := strings.Cut(data, "Subject: ")
	id, _, ok = strings.Cut(rest, "\r\n")
	return id, ok && strings.HasSuffix(data, "0123456789\r\nEND "+id+"\r\n")
}

// cut ends all connections at whatever byte they are.
func (f *flakyServer) cut() {
	f.mu.Lock()
	b := f.servers[len(f.servers)-1]
	f.mu.Unlock()
	b.Close()
	f.listen(f.address)
}

// away is cut, and nobody answers for a moment.
func (f *flakyServer) away() {
	f.mu.Lock()
	b := f.servers[len(f.servers)-1]
	f.mu.Unlock()
	b.Close()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		if nc, err := net.DialTimeout("tcp4", f.address, 50*time.Millisecond); err == nil {
			nc.Close()
		}
	}
	f.listen(f.address)
}

// progress is a condition: so many more messages were accepted, or all are done.
func (f *flakyServer) progress(n int, done *atomic.Bool) func() bool {
	return func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		total := 0
		for _, c := range f.accepted {
			total += c
		}
		if total < f.last+n && !done.Load() {
			return false
		}
		f.last = total
		return true
	}
}

func (f *flakyServer) copies() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}
