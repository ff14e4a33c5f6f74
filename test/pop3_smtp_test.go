package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// pop3Backend serves POP3 logins of any user with the password "good" on a port of 127.0.0.1.
func pop3Backend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go acceptPOP3(l)
	return l.Addr().String()
}

// acceptPOP3 serves everybody who knows the password, until the listener is closed.
func acceptPOP3(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = testenv.Patient(c)
			_, _ = io.WriteString(c, "+OK\r\n")
			for s := bufio.NewScanner(c); s.Scan(); {
				if strings.HasPrefix(s.Text(), "PASS ") && s.Text() != "PASS good" {
					_, _ = io.WriteString(c, "-ERR\r\n")
					continue
				}
				_, _ = io.WriteString(c, "+OK\r\n")
			}
		}()
	}
}

// lines sends lines to a server and returns the first line of each answer, that to nothing (the greeting) first.
func lines(t *testing.T, port int, send ...string) []string {
	t.Helper()
	c := testenv.Dial(t, "tcp", "127.0.0.1:"+strconv.Itoa(port))
	r := bufio.NewReader(c)
	var got []string
	for _, line := range append([]string{""}, send...) {
		if line != "" {
			if _, err := io.WriteString(c, line+"\r\n"); err != nil {
				return got
			}
		}
		answer, err := r.ReadString('\n')
		if err != nil {
			return got
		}
		got = append(got, strings.TrimSpace(answer))
		for len(answer) > 3 && answer[3] == '-' {
			if answer, err = r.ReadString('\n'); err != nil {
				return got
			}
		}
	}
	return got
}

// TestPopBeforeSMTP has a client refused by smtp-proxy until it has fetched mail through pop3-stamp, and again when
// its stamp is old; and the daemons tell listeners. As root, both give it up.
func TestPopBeforeSMTP(t *testing.T) {
	t.Parallel()
	dir := testenv.ShortDir(t)
	stamps, maildir := filepath.Join(dir, "stamps"), filepath.Join(dir, "Maildir")
	for _, d := range []string{dir, stamps, maildir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			nobody, err := user.Lookup("nobody")
			if err != nil {
				t.Fatal(err)
			}
			uid, _ := strconv.Atoi(nobody.Uid)
			if err := os.Chown(d, uid, -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	popPort, smtpPort := testenv.FreePort(t), testenv.FreePort(t)
	events := filepath.Join(dir, "events")
	pop := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", "/dev/null", "--pop3", fmt.Sprintf("inet:%d", popPort),
		"--upstream", "pop3://"+pop3Backend(t), "--clientip-dir", stamps, "--notify", events, "--expire-interval", "100ms",
		"--login-delay", "0s"))
	smtp := testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), "--config", "/dev/null", "--smtp", fmt.Sprintf("inet:%d", smtpPort),
		"--upstream", "maildir:"+maildir, "--clientip-dir", stamps, "--client-lookup=no", "--maxloadavg", "0"))
	for _, port := range []int{popPort, smtpPort} {
		testenv.Eventually(t, "the daemons answer", func() bool {
			c, err := testenv.Connect("tcp", "127.0.0.1:"+strconv.Itoa(port))
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
	cat := testenv.Start(t, exec.Command(testenv.Binary(t, "notify-cat"), "--format", "raw", events))
	testenv.Eventually(t, "notify-cat is connected", func() bool {
		_ = lines(t, popPort, "USER alice", "PASS good")
		return strings.Contains(cat.Output(), "P 127.0.0.1 alice")
	})
	stamp := filepath.Join(stamps, "127.0.0.1")
	if err := os.Remove(stamp); err != nil {
		t.Fatal(err)
	}

	if got := lines(t, smtpPort, "EHLO x"); len(got) == 0 || !strings.HasPrefix(got[0], "421 4.7.0") {
		t.Errorf("without a stamp: %q", got)
	}
	if got := lines(t, popPort, "USER bob", "PASS bad"); len(got) != 3 || !strings.HasPrefix(got[2], "-ERR") {
		t.Errorf("wrong password: %q", got)
	}
	if got := lines(t, smtpPort, "EHLO x"); len(got) == 0 || !strings.HasPrefix(got[0], "421 4.7.0") {
		t.Errorf("after a wrong password: %q", got)
	}
	if got := lines(t, popPort, "USER bob", "PASS good", "QUIT"); len(got) != 4 || !strings.HasPrefix(got[3], "+OK") {
		t.Errorf("login: %q", got)
	}
	got := lines(t, smtpPort, "EHLO x", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "Subject: x\r\n\r\nhello\r\n.", "QUIT")
	if len(got) != 7 || !strings.HasPrefix(got[5], "250 ") {
		t.Errorf("with a stamp: %q\n%s", got, smtp.Output())
	}
	if list, err := os.ReadDir(filepath.Join(maildir, "new")); err != nil || len(list) != 1 {
		t.Errorf("delivered: %v, %v", list, err)
	}

	// Eleven minutes later it is refused, and the stamp is swept away, of which listeners hear.
	old := time.Now().Add(-11 * time.Minute)
	if err := os.Chtimes(stamp, old, old); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the stamp to go", func() bool {
		_, err := os.Stat(stamp)
		return os.IsNotExist(err) && strings.Contains(cat.Output(), "X 127.0.0.1")
	})
	if got := lines(t, smtpPort, "EHLO x"); len(got) == 0 || !strings.HasPrefix(got[0], "421 4.7.0") {
		t.Errorf("with an old stamp: %q", got)
	}
	if !strings.Contains(cat.Output(), "P 127.0.0.1 bob\n") {
		t.Errorf("events:\n%s", cat.Output())
	}
	if os.Geteuid() == 0 {
		for _, p := range []*testenv.Process{pop, smtp} {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
			if err != nil || strings.Contains(string(status), "\nUid:\t0") {
				t.Errorf("still root: %v\n%s", err, status)
			}
		}
	}
	pop.Stop(syscall.SIGTERM)
	if status := pop.Wait(); status != 0 {
		t.Errorf("pop3-stamp: exit status %d", status)
	}
}
