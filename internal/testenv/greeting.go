package testenv

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// awaitGreeting waits until a mail server that was just started says 220, or +OK.
func awaitGreeting(t testing.TB, p *Process, network, address string, log func() string) {
	t.Helper()
	Eventually(t, p.name+" to answer", func() bool {
		if !p.Running() {
			t.Fatalf("%s has ended: %s%s", p.name, p.Output(), log())
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			return false
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		greeting := make([]byte, 4)
		n, _ := conn.Read(greeting)
		return string(greeting[:n]) == "220 " || string(greeting[:n]) == "+OK "
	})
}

// readFiles gives the texts of all files that match a pattern.
func readFiles(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}
