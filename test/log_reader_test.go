package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// badReader is where standard error goes.
type badReader struct {
	name string
	open func(t *testing.T) *os.File
}

// badReaders are the ways in which a log is not read.
var badReaders = []badReader{
	{"unread", func(t *testing.T) *os.File {
		r, w := smallPipe(t)
		t.Cleanup(func() { r.Close() })
		return w
	}},
	{"stopped", func(t *testing.T) *os.File {
		r, w := smallPipe(t)
		cat := exec.Command("cat")
		cat.Stdin = r
		p := testenv.Start(t, cat)
		r.Close()
		t.Cleanup(p.Kill) // it would not heed SIGTERM
		p.Stop(syscall.SIGSTOP)
		return w
	}},
	{"reader gone", func(t *testing.T) *os.File {
		r, w := smallPipe(t)
		r.Close()
		return w
	}},
	{"full disk", func(t *testing.T) *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}},
}

// smallPipe makes a pipe that a few lines fill.
func smallPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	const setPipeSize = 1031 // F_SETPIPE_SZ
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), setPipeSize, 4096); errno != 0 {
		t.Fatal(errno)
	}
	return r, w
}

// startUnread starts a program whose log goes to the reader, and waits until answers does not fail.
func startUnread(t *testing.T, reader badReader, answers func() bool, program string, args ...string) *testenv.Process {
	t.Helper()
	stderr := reader.open(t)
	defer stderr.Close()
	cmd := exec.Command(program, append(args, "--log", "stderr")...)
	cmd.Stderr = stderr
	p := testenv.Start(t, cmd)
	testenv.Eventually(t, "an answer", func() bool {
		if !p.Running() {
			t.Fatalf("%s has ended", filepath.Base(program))
		}
		return answers()
	})
	return p
}

// endsAtOnce sees that SIGTERM ends a program, with status 0.
func endsAtOnce(t *testing.T, p *testenv.Process) {
	t.Helper()
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d after SIGTERM", status)
	}
}

// TestLOG_16_UnreadLogOfSMTPProxy: each message is answered, and delivered once, whoever reads the log or does not.
func TestLOG_16_UnreadLogOfSMTPProxy(t *testing.T) {
	t.Parallel()
	for _, reader := range badReaders {
		t.Run(reader.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
			args := []string{"--config", "/dev/null", "--maxloadavg", "0", "--smtp", "tcp:" + address, "--upstream", "smtp://" + b.Addr, "--log-level", "debug"}
			if account, drops := testenv.DaemonAccount(); drops {
				args = append(args, "--user", account)
			}
			p := startUnread(t, reader, func() bool { return greets(address) }, testenv.Binary(t, "smtp-proxy"), args...)
			const messages = 60
			c := dialLines(t, address)
			c.want("220")
			c.ask("EHLO x.example\r\n", "250")
			for range messages {
				c.ask("MAIL FROM:<a@b.example>\r\n", "250")
				c.ask("RCPT TO:<c@d.example>\r\n", "250")
				c.ask("DATA\r\n", "354")
				c.ask("Subject: x\r\n\r\nx\r\n.\r\n", "250")
			}
			c.ask("QUIT\r\n", "221")
			if n := len(b.Messages()); n != messages {
				t.Errorf("%d messages were delivered, want %d", n, messages)
			}
			endsAtOnce(t, p)
		})
	}
}

// lineClient is one side of a dialog of lines.
type lineClient struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialLines(t *testing.T, address string) *lineClient {
	t.Helper()
	conn, err := testenv.Connect("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	testenv.Patient(conn)
	return &lineClient{t, conn, bufio.NewReader(conn)}
}

// ask sends a text and wants a reply.
func (c *lineClient) ask(text, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
	c.want(want)
}

// want reads a reply, of several lines in SMTP, and wants it to begin so.
func (c *lineClient) want(want string) {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			c.t.Fatalf("%q, %v; want %q", line, err, want)
		}
		if len(line) < 4 || line[3] != '-' {
			return
		}
	}
}

// TestLOG_16_UnreadLogOfPop3Stamp is the same for sessions that cause lines.
func TestLOG_16_UnreadLogOfPop3Stamp(t *testing.T) {
	t.Parallel()
	for _, reader := range badReaders {
		t.Run(reader.name, func(t *testing.T) {
			port := testenv.FreePort(t)
			address := fmt.Sprintf("127.0.0.1:%d", port)
			args := []string{"--config", "/dev/null", "--pop3", fmt.Sprintf("inet:%d", port), "--upstream", fmt.Sprintf("pop3://127.0.0.1:%d", testenv.FreePort(t)),
				"--log-level", "debug"}
			if account, drops := testenv.DaemonAccount(); drops {
				args = append(args, "--user", account)
			}
			answers := func() bool {
				conn, err := testenv.Connect("tcp", address)
				if err == nil {
					conn.Close()
				}
				return err == nil
			}
			p := startUnread(t, reader, answers, testenv.Binary(t, "pop3-stamp"), args...)
			for range 100 {
				c := dialLines(t, address)
				c.want("+OK")
				c.ask("CAPA\r\n", "-ERR [SYS/TEMP]") // there is no server
				c.Close()
			}
			endsAtOnce(t, p)
		})
	}
}

// TestLOG_16_UnreadLogOfMultiplexor is the same for workers that say a lot.
func TestLOG_16_UnreadLogOfMultiplexor(t *testing.T) {
	t.Parallel()
	worker := filepath.Join(testenv.ShortDir(t), "worker")
	text := "#!/usr/bin/perl\n$| = 1;\nwhile (<STDIN>) { print STDERR (('x' x 100) . \"\\n\") for 1 .. 100; print \"ok\\n\"; }\n"
	if err := os.WriteFile(worker, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(worker), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, reader := range badReaders {
		t.Run(reader.name, func(t *testing.T) {
			m := &oneMultiplexor{t: t, dir: testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))}
			args := []string{"-D", "-l", "-T", "-z", m.dir, "-s", m.path("s"), "-f", worker}
			if account, drops := testenv.DaemonAccount(); drops {
				args = append(args, "-U", account)
			}
			answers := func() bool {
				conn, err := testenv.Connect("unix", m.path("s"))
				if err == nil {
					conn.Close()
				}
				return err == nil
			}
			m.proc = startUnread(t, reader, answers, testenv.Binary(t, "multiplexor"), args...)
			for range 50 {
				if got := m.ask("relayok x\n"); got != "ok\n" {
					t.Fatalf("answer %q", got)
				}
			}
			endsAtOnce(t, m.proc)
		})
	}
}
