package testenv

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Manager is a datagram socket in the place of the service manager's, sd_notify(3). It is for one goroutine.
type Manager struct {
	Path string   // for NOTIFY_SOCKET
	Seen []string // all messages but WATCHDOG=1
	Pats int      // messages WATCHDOG=1

	Ticks chan time.Time // for a daemon whose watchdog the test drives

	t    testing.TB
	conn *net.UnixConn
}

// StartManager makes the socket, for every account.
func StartManager(t testing.TB) *Manager {
	t.Helper()
	path := filepath.Join(ShortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	return &Manager{Path: path, Ticks: make(chan time.Time), t: t, conn: conn}
}

// Read takes one message, if one comes within d.
func (m *Manager) Read(d time.Duration) bool {
	_ = m.conn.SetReadDeadline(time.Now().Add(min(d, Patience)))
	buf := make([]byte, 4096)
	n, err := m.conn.Read(buf)
	if err != nil {
		return false
	}
	if text := string(buf[:n]); text == "WATCHDOG=1" {
		m.Pats++
	} else {
		m.Seen = append(m.Seen, text)
	}
	return true
}

// Wait reads until a message matches and returns it.
func (m *Manager) Wait(pattern string) string {
	m.t.Helper()
	re := regexp.MustCompile("^" + pattern + "$")
	from, end := len(m.Seen), time.Now().Add(Patience) // other messages come all the time
	for {
		for _, text := range m.Seen[from:] {
			if re.MatchString(text) {
				return text
			}
		}
		if !m.Read(time.Until(end)) {
			m.t.Fatalf("no message %s in %q", pattern, m.Seen)
		}
	}
}

// AwaitPat reads until one more sign of life has come.
func (m *Manager) AwaitPat() {
	m.t.Helper()
	for pats, end := m.Pats, time.Now().Add(Patience); m.Pats == pats; {
		if !m.Read(time.Until(end)) {
			m.t.Fatalf("no sign of life; messages %q", m.Seen)
		}
	}
}

// Drain takes the messages that are there.
func (m *Manager) Drain() {
	for m.Read(time.Millisecond) {
	}
}

// Tick has the daemon ask itself for a sign of life.
func (m *Manager) Tick() {
	m.t.Helper()
	Go(m.t, "a watchdog that takes a tick", func() error { m.Ticks <- time.Time{}; return nil }).Wait()
}

// Lives wants signs of life.
func (m *Manager) Lives() {
	m.t.Helper()
	m.Drain()
	m.Tick()
	m.AwaitPat()
}

// Hangs wants no sign of life, and a line in the log that names what hangs, until release was called.
func (m *Manager) Hangs(what string, log func() string, release func()) {
	m.t.Helper()
	m.Drain()
	pats, old := m.Pats, len(log())
	m.Tick()
	Eventually(m.t, "a line in the log about "+what, func() bool {
		m.Tick() // finds the question of the first one without an answer
		return strings.Contains(log()[old:], `something hangs" what="`+what)
	})
	if m.Drain(); m.Pats != pats {
		m.t.Errorf("%s: a sign of life", what)
	}
	release()
	m.AwaitPat()
	m.Lives()
}
