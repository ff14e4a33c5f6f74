package upstream

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// Exim and OpenSMTPD behind: messages arrive as they were sent, one by one, on one connection, and with the name
// that the server's reply has.
func TestOtherServers(t *testing.T) {
	t.Parallel()
	t.Run("Exim", func(t *testing.T) {
		s := testenv.StartExim(t, 0, "")
		tryServer(t, s.Address(), "bob@example.net", s.Delivered)
	})
	t.Run("OpenSMTPD", func(t *testing.T) {
		s := testenv.StartOpenSMTPD(t)
		tryServer(t, s.Address(), "bob@example.net", s.Delivered)
	})
}

func tryServer(t *testing.T, address, rcpt string, delivered func() []string) {
	set := newSet(t, Config{URLs: []string{"smtp://" + address}, Helo: "proxy.example.net"})
	const messages = 5
	for i := range messages {
		c := get(t, set, Client{})
		content := fmt.Sprintf("Subject: %d\r\n\r\n.\r\n..dots\r\nfirst\n.\nRSET\r\nlast %d;", i, i)
		if code, id := send(t, c, "ann@example.org", rcpt, content); code != 250 || id == "" {
			t.Errorf("code %d, queue id %q", code, id)
		}
		c.Release()
	}
	testenv.Eventually(t, "all messages arrive", func() bool { return len(delivered()) >= messages })
	for i := range messages {
		found := 0
		for _, text := range delivered() {
			_, body, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
			if strings.TrimSpace(body) == fmt.Sprintf(".\n..dots\nfirst\n.\nRSET\nlast %d;", i) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("message %d arrived %d times, of: %q", i, found, delivered())
		}
	}
	if s := set.Stats()[0]; s.Dialed != 1 || s.Reused != messages-1 {
		t.Errorf("%+v", s)
	}
}
