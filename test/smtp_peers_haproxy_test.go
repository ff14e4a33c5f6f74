package test

import (
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestBehindHAProxy has clients come through a real HAProxy, which tells the proxy who they are by a PROXY header.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	// HAProxy's health checks are sessions of its own address.
	d := startFrontDoor(t, "smtp://"+b.Addr, "--proxy-from", "127.0.0.1", "--max-sessions-per-address", "1", "--limit-exempt", "127.0.0.1", "--log-format", "json")
	d.process.WaitOutput(`"msg":"ready"`)
	h := testenv.StartHAProxy(t, d.address())

	for i, v := range []struct {
		name, client string
		port         int
	}{{"v1", "127.0.0.7", h.PortV1}, {"v2", "127.0.0.8", h.PortV2}} {
		t.Run(v.name, func(t *testing.T) {
			subject := "through-haproxy-" + v.name
			message := messageOfSize(subject, 300<<10)
			c := startTalk(t, v.client, fmt.Sprintf("127.0.0.1:%d", v.port))
			if code, text := c.offer(message); code != 250 {
				t.Fatalf("%d %s", code, text)
			}
			_, received := arrivedOnce(t, b, subject, message)
			if !strings.Contains(received[0], "["+v.client+"]") {
				t.Errorf("want the client's address %s in %s", v.client, received[0])
			}
			// The limit per address is one for that client, not for HAProxy; another one is not touched.
			refused := dialFrom(t, v.client, fmt.Sprintf("127.0.0.1:%d", v.port))
			if text := readToEnd(t, refused); !strings.HasPrefix(text, "421 ") {
				t.Errorf("second session of %s: %q, want 421", v.client, text)
			}
			startTalk(t, fmt.Sprintf("127.0.1.%d", i+1), fmt.Sprintf("127.0.0.1:%d", v.port)).say("QUIT", 221)
			c.say("QUIT", 221)
		})
	}
	t.Run("health checks", func(t *testing.T) {
		// HAProxy sees more than an open port: it talks SMTP, under a header without addresses.
		testenv.Eventually(t, "HAProxy finds both servers well", func() bool {
			return healthy(t, h, "s1") && healthy(t, h, "s2")
		})
	})
	t.Run("no header", func(t *testing.T) {
		conn := dialFrom(t, "127.0.0.1", d.address())
		if _, err := io.WriteString(conn, "EHLO client.example.org\r\n"); err != nil {
			t.Fatal(err)
		}
		if text := readToEnd(t, conn); text != "" {
			t.Errorf("without a header we were told %q", text)
		}
	})
	t.Run("not from HAProxy", func(t *testing.T) {
		// Elsewhere in the network no header is believed, nor needed.
		startTalk(t, "127.0.0.9", d.address()).say("QUIT", 221)
		conn := dialFrom(t, "127.0.0.10", d.address())
		if _, err := io.WriteString(conn, "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n"); err != nil {
			t.Fatal(err)
		}
		if text := readToEnd(t, conn); strings.Contains(text, "\n2") {
			t.Errorf("a header from anywhere was answered by %q", text)
		}
		if strings.Contains(d.process.Output(), "192.0.2.1:") {
			t.Error("a header from anywhere was believed")
		}
	})
	d.stop()
}

// healthy says whether HAProxy's last check of a server got its SMTP answers.
func healthy(t *testing.T, h *testenv.HAProxy, server string) bool {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(h.Stats(), "# "))).ReadAll()
	if err != nil || len(lines) == 0 {
		t.Fatalf("figures of HAProxy: %v", err)
	}
	name, status := slices.Index(lines[0], "svname"), slices.Index(lines[0], "check_status")
	for _, line := range lines[1:] {
		if line[name] == server {
			return line[status] == "L7OK"
		}
	}
	t.Fatalf("HAProxy knows no server %s: %v", server, lines)
	return false
}

// dialFrom connects from an address of this machine.
func dialFrom(t *testing.T, from, to string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: testenv.Patience}
	conn, err := dialer.DialContext(t.Context(), "tcp4", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := testenv.Patient(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readToEnd reads until the other side closes the connection, which it must.
func readToEnd(t *testing.T, conn net.Conn) string {
	t.Helper()
	text, err := io.ReadAll(conn)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection is not closed: %v", err)
	}
	return string(text)
}
