package main

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/logging"
	"postern/internal/testenv"
)

// TestLOG_22_FloodsOfStrangers counts the lines of a second in which a stranger does the same thing very often.
func TestLOG_22_FloodsOfStrangers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, url, text string
		connections     int
	}{
		{"unknown commands", backendAt(t, mailbox("")), strings.Repeat("BAD\r\n", 300), 100},
		{"PROXY header", backendAt(t, mailbox("")), "PROXY TCP4 192.0.2.1 192.0.2.2 25 25\r\nQUIT\r\n", 200},
		{"failed logins", backendAt(t, mailbox("")), strings.Repeat("USER bob\r\nPASS x\r\n", 100), 50},
		{"server down", "pop3://127.0.0.1:1", "USER bob\r\nPASS x\r\n", 200},
		{"nothing", backendAt(t, mailbox("")), "", 300},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := &testenv.Buffer{}
			r := startWith(t, func(io.Writer) *slog.Logger {
				out := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
				return logging.Limit(out, logging.Strangers, func() time.Time { return time.Unix(1_000_000_000, 0) })
			}, tt.url, "--max-login-failures=0")
			for range tt.connections {
				c, err := testenv.Connect("tcp", r.addr)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(c, tt.text) // the session may be over already
				_ = c.(*net.TCPConn).CloseWrite()
				_ = testenv.Patient(c)
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
			testenv.Eventually(t, "sessions end", func() bool { return r.limits.count() == 0 })
			if n := strings.Count(log.String(), "\n"); n > 35 || n == 0 {
				t.Errorf("%d lines, of which the first are\n%.3000s", n, log.String())
			}
		})
	}
}
