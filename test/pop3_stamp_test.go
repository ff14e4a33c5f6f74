package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// startPop3Stamp starts pop3-stamp with the given settings and waits until it answers on the port.
func startPop3Stamp(t *testing.T, port int, settings string) *testenv.Process {
	t.Helper()
	dir := testenv.ShortDir(t)
	file := filepath.Join(dir, "pop3-stamp.conf")
	settings = fmt.Sprintf("pop3 inet:%d\nhostname pop.test\nlogin-delay 0s\nlog-level debug\n%s\n", port, settings)
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", file}
	if os.Geteuid() == 0 {
		args = append(args, "--user", "root", "--allow-root")
	}
	p := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), args...))
	testenv.Eventually(t, "pop3-stamp answers", func() bool {
		c, err := testenv.Connect("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		defer c.Close()
		_ = testenv.Patient(c)
		line, err := bufio.NewReader(c).ReadString('\n')
		return err == nil && strings.HasPrefix(line, "+OK pop.test")
	})
	return p
}

// TestPop3StampBeforeDovecot has curl fetch mail from a real Dovecot through pop3-stamp.
func TestPop3StampBeforeDovecot(t *testing.T) {
	t.Parallel()
	curl := testenv.Path(t, "curl as POP3 client", "curl")
	dovecot := testenv.StartDovecot(t)
	message := []byte("Subject: x\r\n\r\n.a line with a dot\r\n..\r\n" + strings.Repeat("y", 50000) + "\r\n")
	dovecot.Deliver(t, "1.x.y", bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")))
	random := rand.New(rand.NewPCG(1, 2))
	big := []byte("Subject: big\r\n\r\n")
	for range 200000 {
		big = fmt.Appendf(big, "%x\r\n", random.Uint64())
	}
	dovecot.Deliver(t, "2.x.y", bytes.ReplaceAll(big, []byte("\r\n"), []byte("\n")))

	stamps, stats := t.TempDir(), t.TempDir()
	port, tlsPort := testenv.FreePort(t), testenv.FreePort(t)
	cert, key := testenv.Certificate(t, testenv.ShortDir(t))
	p := startPop3Stamp(t, port, fmt.Sprintf("upstream pop3://%s\nclientip-dir %s\nstatdir %s\npop3s inet:%d\ntls-cert %s\ntls-key %s\nsasl PLAIN\nsasl CRAM-MD5",
		dovecot.Address(), stamps, stats, tlsPort, cert, key))
	// curl takes USER and PASS only from a server that offers nothing better.
	simplePort := testenv.FreePort(t)
	startPop3Stamp(t, simplePort, fmt.Sprintf("upstream pop3://%s\nclientip-dir %s", dovecot.Address(), stamps))
	simple := fmt.Sprintf("pop3://127.0.0.1:%d", simplePort)
	stamp := filepath.Join(stamps, "127.0.0.1")
	url := fmt.Sprintf("pop3://127.0.0.1:%d", port)
	login := testenv.POP3User + ":" + testenv.POP3Password
	fetch := func(args ...string) (string, int) {
		t.Helper()
		stdout, _, status := testenv.Run(t, curl, append([]string{"-s"}, args...)...)
		return stdout, status
	}

	if _, status := fetch("-u", testenv.POP3User+":wrong", simple+"/"); status == 0 {
		t.Error("a wrong password was accepted")
	}
	if _, err := os.Stat(stamp); err == nil {
		t.Error("a stamp after a wrong password")
	}
	if list, status := fetch("-u", login, simple+"/"); status != 0 || strings.Count(list, "\n") != 2 {
		t.Errorf("list: status %d, %q", status, list)
	}
	if line, err := os.ReadFile(stamp); err != nil || !strings.HasSuffix(string(line), " 127.0.0.1 bob "+dovecot.Address()+"\n") {
		t.Errorf("stamp %q, %v", line, err)
	}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"USER and PASS", []string{simple + "/1"}},
		{"SASL PLAIN", []string{"--login-options", "AUTH=PLAIN", url + "/1"}},
		{"SASL CRAM-MD5", []string{"--login-options", "AUTH=CRAM-MD5", url + "/1"}},
		{"STLS", []string{"--ssl-reqd", "--cacert", cert, url + "/1"}},
		{"pop3s", []string{"--cacert", cert, fmt.Sprintf("pop3s://127.0.0.1:%d/1", tlsPort)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Remove(stamp); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if got, status := fetch(append([]string{"-u", login}, tt.args...)...); status != 0 || got != string(message) {
				t.Errorf("status %d, %d bytes, want %d", status, len(got), len(message))
			}
			if line, err := os.ReadFile(stamp); err != nil || !strings.HasSuffix(string(line), " 127.0.0.1 bob "+dovecot.Address()+"\n") {
				t.Errorf("stamp %q, %v", line, err)
			}
		})
	}
	if got, status := fetch("-u", login, url+"/2"); status != 0 || got != string(big) {
		t.Errorf("big message: status %d, %d bytes, want %d", status, len(got), len(big))
	}
	testenv.Eventually(t, "no status file is left", func() bool {
		list, err := os.ReadDir(stats)
		return err == nil && len(list) == 0
	})
	if out := p.Output(); strings.Contains(out, testenv.POP3Password) || strings.Contains(out, "Ym9i") {
		t.Errorf("a password is in the log:\n%s", out)
	}
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestPop3StampUpstreamTLS has pop3-stamp talk TLS with a real Dovecot.
func TestPop3StampUpstreamTLS(t *testing.T) {
	t.Parallel()
	dovecot := testenv.StartDovecot(t)
	plain, secure := "upstream pop3://"+dovecot.Address()+"\n", fmt.Sprintf("upstream pop3s://127.0.0.1:%d\n", dovecot.TLSPort)
	tests := []struct {
		name, settings string
		works          bool
	}{
		{"may", plain + "upstream-tls may", true},
		{"require", plain + "upstream-tls require", true},
		{"self-signed", plain + "upstream-tls verify", false},
		{"TLS at once", secure, true},
		{"TLS at once, self-signed", secure + "upstream-tls verify", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			port := testenv.FreePort(t)
			startPop3Stamp(t, port, tt.settings+"\nclientip-dir "+t.TempDir())
			c := testenv.Dial(t, "tcp", "127.0.0.1:"+strconv.Itoa(port))
			r := bufio.NewReader(c)
			if _, err := io.WriteString(c, "USER bob\r\nPASS secret word\r\n"); err != nil {
				t.Fatal(err)
			}
			var last string
			for range 3 {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				last = line
			}
			if strings.HasPrefix(last, "+OK") != tt.works {
				t.Errorf("answer to PASS %q, want success %v", last, tt.works)
			}
		})
	}
}

// asStarted has commands that root runs stay root: the directories of tests are those of the user who runs them.
var asStarted = []string{"--config", "/dev/null", "--user", "root"}

// TestPop3StampCommandsByRoot: the directory of stamps is the daemon's, and so is what root writes there.
func TestPop3StampCommandsByRoot(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	account, _ := testenv.DaemonAccount()
	outer := testenv.ShortDir(t)
	roots, its := filepath.Join(outer, "root"), testenv.DaemonDir(t, filepath.Join(outer, "its"))
	if err := os.Mkdir(roots, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(wantStatus int, dir string, args ...string) string {
		t.Helper()
		stdout, stderr, status := testenv.Run(t, testenv.Binary(t, "pop3-stamp"), slices.Concat([]string{"--config", "/dev/null", "--user", account, "--clientip-dir", dir}, args)...)
		if status != wantStatus {
			t.Errorf("%q: status %d, want %d: %s", args, status, wantStatus, stderr)
		}
		return stdout
	}
	run(75, roots, "add", "--client", "192.0.2.7")
	run(0, its, "add", "--client", "192.0.2.7")
	var st, parent syscall.Stat_t
	err := errors.Join(syscall.Stat(its, &parent), syscall.Stat(filepath.Join(its, "192.0.2.7"), &st))
	if err != nil || st.Uid != parent.Uid || st.Uid == 0 {
		t.Errorf("a stamp of user %d (%v), want %d", st.Uid, err, parent.Uid)
	}
	if out := run(0, its, "list"); !strings.Contains(out, "192.0.2.7") {
		t.Errorf("listed: %q", out)
	}
	run(0, its, "revoke", "--client", "192.0.2.7")
}

// TestPop3StampCommands runs the commands for stamps, with stamps in a directory and in a shared store.
func TestPop3StampCommands(t *testing.T) {
	t.Parallel()
	program := testenv.Binary(t, "pop3-stamp")
	dir := t.TempDir()
	places := map[string][]string{"directory": {"--clientip-dir", dir}}
	if _, err := testenv.Find("redis-server"); err == nil && !testing.Short() {
		places["store"] = []string{"--clientip-store", testenv.StartRedis(t).URL(), "--clientip-store-timeout", "1m"}
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			run := func(wantStatus int, args ...string) (string, string) {
				t.Helper()
				stdout, stderr, status := testenv.Run(t, program, slices.Concat(asStarted, place, args)...)
				if status != wantStatus {
					t.Errorf("%q: status %d, want %d: %s", args, status, wantStatus, stderr)
				}
				return stdout, stderr
			}
			run(1, "list")
			run(1, "check", "--client", "192.0.2.7")
			run(0, "touch", "--client", "::ffff:192.0.2.7", "--login", "bob smith\n/..", "--server", "here")
			run(0, "add", "--client", "192.0.2.8", "--login", "ann")
			run(0, "add", "--client", "2001:DB8:0:0::1%eth0", "--login", "ann")
			for _, tt := range []struct {
				want string // addresses
				args []string
			}{
				{"192.0.2.7", []string{"check", "--client", "192.0.2.7"}},
				{"192.0.2.7", []string{"check", "--client", "::ffff:192.0.2.7", "--login", "bob smith\n/.."}},
				{"", []string{"check", "--client", "192.0.2.7", "--login", "ann"}},
				{"192.0.2.8 2001:db8::1", []string{"check", "--login", "ann"}},
				{"192.0.2.7 192.0.2.8 2001:db8::1", []string{"list"}},
				{"192.0.2.7 192.0.2.8", []string{"list", "--client", "192.0.2.0/24"}},
				{"192.0.2.8", []string{"list", "--client", "192.0.2.0/24", "--login", "ann"}},
				{"2001:db8::1", []string{"list", "--client", "2001:db8::/32"}},
				{"", []string{"list", "--login", "nobody"}},
			} {
				status := 0
				if tt.want == "" {
					status = 1
				}
				var listed []string
				objects, _ := run(status, append(tt.args, "--format", "json")...)
				for line := range strings.Lines(objects) {
					var st struct {
						Address, User, Server string
						Written               time.Time
						Age                   *int
					}
					if err := json.Unmarshal([]byte(line), &st); err != nil || st.User == "" || st.Age == nil || time.Since(st.Written) > time.Hour {
						t.Errorf("%q: %s: %v", tt.args, line, err)
					}
					listed = append(listed, st.Address)
				}
				slices.Sort(listed)
				if strings.Join(listed, " ") != tt.want {
					t.Errorf("%q: %q, want %q", tt.args, listed, tt.want)
				}
			}
			table, _ := run(0, "check", "--client", "192.0.2.7")
			if words := strings.Fields(table); len(words) != 8 || words[0] != "ADDRESS" || words[4] != "192.0.2.7" || words[6] != "bob%20smith%0A/.." || words[7] != "here" {
				t.Errorf("table %q", words)
			}
			if out, _ := run(0, "expire"); out != "0 removed\n" {
				t.Errorf("expire: %q", out)
			}
			if out, _ := run(0, "revoke", "--login", "ann"); out != "2 removed\n" {
				t.Errorf("revoke by user: %q", out)
			}
			for _, want := range []string{"1 removed\n", "0 removed\n"} {
				if out, _ := run(0, "revoke", "--client", "192.0.2.7"); out != want {
					t.Errorf("revoke: %q, want %q", out, want)
				}
			}
			run(1, "list")
		})
	}
	if _, stderr, status := testenv.Run(t, program, "--config", "/dev/null", "expire"); status != 78 || !strings.Contains(stderr, "clientip-dir") {
		t.Errorf("without a directory: status %d, %q", status, stderr)
	}
	if _, stderr, status := testenv.Run(t, program, "--config", "/dev/null", "--check", "--upstream", "imap://x"); status != 78 || !strings.Contains(stderr, "upstream") {
		t.Errorf("bad upstream: status %d, %q", status, stderr)
	}
	if _, _, status := testenv.Run(t, program, "--config", "/dev/null", "--clientip-store", "unix:///nonexistent/redis", "list"); status != 75 {
		t.Errorf("no store: status %d, want 75", status)
	}
	if _, stderr, status := testenv.Run(t, program, "--config", "/dev/null", "--check", "--pop3", "inet:10110", "--clientip-store", "unix:///nonexistent/redis"); status != 0 || !strings.Contains(stderr, "clientip-store does not answer") {
		t.Errorf("--check without the store: status %d, %q", status, stderr)
	}
	if _, stderr, status := testenv.Run(t, program, "--config", "/dev/null", "--clientip-store", "redis://h", "--clientip-dir", dir, "list"); status != 78 {
		t.Errorf("two places: status %d, want 78: %s", status, stderr)
	}
}

// TestPop3StampOldStamps: the commands for a directory go by the age of the files, and by who may write there.
func TestPop3StampOldStamps(t *testing.T) {
	t.Parallel()
	program := testenv.Binary(t, "pop3-stamp")
	dir := t.TempDir()
	run := func(wantStatus int, args ...string) (string, string) {
		t.Helper()
		stdout, stderr, status := testenv.Run(t, program, slices.Concat(asStarted, []string{"--clientip-dir", dir}, args)...)
		if status != wantStatus {
			t.Errorf("%q: status %d, want %d: %s", args, status, wantStatus, stderr)
		}
		return stdout, stderr
	}
	for _, bad := range []string{"../../etc/x", "192.0.2.1/../x", ".", "%2e%2e", "010.0.0.1", strings.Repeat("1", 300), "host.example", "192.0.2.0/24", ""} {
		if _, stderr := run(64, "touch", "--client", bad); !strings.HasPrefix(stderr, "pop3-stamp: error: client ") {
			t.Errorf("%q: %q", bad, stderr)
		}
	}
	for _, bad := range [][]string{{"touch"}, {"nonsense"}, {"check"}, {"revoke"}, {"list", "--client", "x"}, {"list", "--format", "xml"}} {
		run(64, bad...)
	}
	run(0, "add", "--client", "192.0.2.7", "--login", "bob smith", "--server", "here")
	stamp := filepath.Join(dir, "192.0.2.7")
	if line, err := os.ReadFile(stamp); err != nil || !strings.HasSuffix(string(line), " 192.0.2.7 bob%20smith here\n") {
		t.Errorf("stamp %q, %v", line, err)
	}
	old := time.Now().Add(-21 * time.Minute)
	if err := os.Chtimes(stamp, old, old); err != nil {
		t.Fatal(err)
	}
	run(1, "list")
	if out, _ := run(0, "expire", "--age", "22m"); out != "0 removed\n" {
		t.Errorf("expire: %q", out)
	}
	if out, _ := run(0, "expire"); out != "1 removed\n" {
		t.Errorf("expire: %q", out)
	}
	run(0, "touch", "--client", "2001:db8:1:2::3", "--clientip-ipv6-prefix", "64")
	if _, err := os.Stat(filepath.Join(dir, "2001:db8:1:2::")); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, stderr := run(78, "touch", "--client", "192.0.2.1"); !strings.Contains(stderr, "writable for everybody") {
		t.Errorf("world-writable directory: %q", stderr)
	}
}
