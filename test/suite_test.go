package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// gateway is smtp-proxy, multiplexor and filter-basic, in front of a Maildir.
type gateway struct {
	dir, spool, maildir string
	port                int
	multiplexor, proxy  *testenv.Process
}

func (g *gateway) socket(name string) string { return filepath.Join(g.dir, "run", name) }
func (g *gateway) address() string           { return fmt.Sprintf("127.0.0.1:%d", g.port) }

// startGateway starts the suite as an administrator would, in front of a
// Maildir, and waits until it takes mail.
func startGateway(t *testing.T, proxyArgs ...string) *gateway {
	t.Helper()
	return startGatewayTo(t, "", testenv.FreePort(t), proxyArgs...)
}

// startGatewayTo is startGateway in front of any server, at a certain port.
func startGatewayTo(t *testing.T, upstream string, port int, proxyArgs ...string) *gateway {
	t.Helper()
	g := &gateway{dir: testenv.ShortDir(t), port: port}
	testenv.DaemonDir(t, filepath.Join(g.dir, "run"))
	g.spool, g.maildir = testenv.DaemonDir(t, filepath.Join(g.dir, "spool")), testenv.DaemonDir(t, filepath.Join(g.dir, "Maildir"))

	args := []string{"-D", "-m", "2", "-x", "4", "-s", g.socket("mx"), "-O", g.socket("mx-notify"), "-z", g.spool,
		"-f", testenv.Binary(t, "filter-basic")}
	account, drops := testenv.DaemonAccount()
	if drops {
		args = append(args, "-U", account)
	}
	g.multiplexor = testenv.Start(t, exec.Command(testenv.Binary(t, "multiplexor"), args...))
	control := testenv.Binary(t, "mx-ctrl")
	testenv.Eventually(t, "a free worker", func() bool {
		if !g.multiplexor.Running() {
			t.Fatal("multiplexor has ended")
		}
		free, _, status := testenv.Run(t, control, "-s", g.socket("mx"), "free")
		return status == 0 && strings.TrimSpace(free) != "0"
	})

	if upstream == "" {
		upstream = "maildir:" + g.maildir
	}
	args = append([]string{"--maxloadavg", "0", "--smtp", "tcp:" + g.address(), "--notify", g.socket("proxy-notify"), "--multiplexor", g.socket("mx"),
		"--multiplexor-notify", g.socket("mx-notify"), "--spool", g.spool, "--upstream", upstream}, proxyArgs...)
	if drops {
		args = append(args, "--user", account)
	}
	g.proxy = testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), args...))
	testenv.Eventually(t, "the proxy's greeting", func() bool {
		if !g.proxy.Running() {
			t.Fatal("smtp-proxy has ended")
		}
		return greets(g.address())
	})
	return g
}

// greets says whether an SMTP server at address is ready for a client.
func greets(address string) bool {
	conn, err := testenv.Connect("tcp4", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	testenv.Patient(conn)
	greeting := make([]byte, 4)
	n, _ := conn.Read(greeting)
	if n == 4 {
		fmt.Fprintf(conn, "QUIT\r\n")
	}
	return string(greeting[:n]) == "220 " || string(greeting[:n]) == "220-"
}

// delivered reads all messages of the Maildir.
func (g *gateway) delivered(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(g.maildir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, string(text))
	}
	return messages
}
