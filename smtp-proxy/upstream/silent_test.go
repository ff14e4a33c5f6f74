package upstream

import (
	"net"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func TestSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 here\r\n"))
		}
	}()
	here, nobody := l.Addr().String(), "smtp://"+freeAddress(t)
	c := Config{URLs: []string{"smtp://" + here, nobody, "maildir:/nowhere", "exec:/bin/false", "smtps://" + here, "lmtp:" + testenv.ShortDir(t) + "/none"}}
	got := c.Silent(t.Context())
	if len(got) != 2 || !strings.Contains(got[0], nobody) || !strings.Contains(got[1], "lmtp:") {
		t.Errorf("silent: %q, want %s and the missing socket", got, nobody)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
