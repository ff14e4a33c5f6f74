package testenv

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// StartFakeStore starts a Redis that answers every script in the same way, in RESP2. It returns its URL.
func StartFakeStore(t testing.TB, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting := Go(t, "a store that lies", func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return nil
			}
			go lie(conn, answer)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
	})
	return "redis://" + l.Addr().String()
}

func lie(conn net.Conn, answer string) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		switch word := strings.ToLower(strings.TrimSpace(line)); {
		case err != nil:
			return
		case word == "hello":
			_, _ = fmt.Fprint(conn, "-ERR unknown command\r\n")
		case word == "eval" || word == "evalsha":
			_, _ = fmt.Fprint(conn, answer)
		}
	}
}
