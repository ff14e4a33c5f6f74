package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// scanFiles are the settings of the scanners that the tests start: each knows one sign, and asks nobody else.
const (
	clamdSettings = `LocalSocket %[1]s/clamd
DatabaseDirectory %[1]s
Foreground true
StreamMaxLength 1M
`
	clamdSignatures = "Postern.Test:0:*:504f535445524e2d5649525553\n" // POSTERN-VIRUS

	rspamdSettings = `options {
  pidfile = "%[1]s/pid";
  tempdir = "%[1]s";
  url_tld = "%[1]s/tlds";
  dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }
}
logging { type = "console"; level = "warning"; }
metric { name = "default"; actions { reject = 15; add_header = 6; greylist = 4; } }
lua = "%[1]s/rules.lua";
worker "normal" { bind_socket = "%[1]s/rspamd mode=0666"; count = 1; }
`
	rspamdRules = `rspamd_config:register_symbol{ name = 'POSTERN_MARK', type = 'normal', score = 7.0, callback = function(task)
  if not (task:get_subject() or ''):find('spam') then return false end
  task:set_milter_reply({
    add_headers = { ['X-Seen'] = string.format('%s %s %s %s %d', task:get_from('smtp')[1].addr, task:get_user(), task:get_helo(),
      tostring(task:get_ip()), #task:get_recipients('smtp')) },
    remove_headers = { ['X-Old'] = 0 } })
  return true, 1.0
end }
rspamd_config:register_symbol{ name = 'POSTERN_REFUSE', type = 'normal', score = 20.0, callback = function(task)
  if (task:get_subject() or ''):find('reject') then return true, 1.0 end
  return false
end }
`

	spamdSettings = `body POSTERN_TEST /POSTERN-SPAM/
score POSTERN_TEST 10
required_score 5
add_header all Status "_YESNO_, score=_SCORE_ required=_REQD_ tests=_TESTS_"
add_header spam Flag _YESNOCAPS_
report_safe 0
use_bayes 0
`
	spamdPlugins = "loadplugin Mail::SpamAssassin::Plugin::Check\n"
)

// startScanner starts a scanner of Debian's, with files in a directory of its own, and waits for its socket.
func startScanner(t *testing.T, program string, files map[string]string, args ...string) (socket string) {
	t.Helper()
	path := testenv.Path(t, "filter-basic with the real "+program, program)
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if strings.Contains(text, "%[1]s") {
			text = fmt.Sprintf(text, dir)
		}
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "DIR", dir)
	}
	testenv.Start(t, exec.Command(path, args...))
	socket = filepath.Join(dir, program)
	testenv.Eventually(t, program+" listens", func() bool {
		c, err := testenv.Connect("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return socket
}

// scanMessage has filter-basic judge a message of somebody who has logged in, and returns what it writes to RESULTS and
// to its log.
func scanMessage(t *testing.T, message string, flags ...string) (results, log string) {
	t.Helper()
	return scanFrom(t, "=auth_authen bob\n", message, flags...)
}

// scanAnonymous is scanMessage for somebody who has not.
func scanAnonymous(t *testing.T, message string, flags ...string) (results, log string) {
	t.Helper()
	return scanFrom(t, "", message, flags...)
}

func scanFrom(t *testing.T, login, message string, flags ...string) (results, log string) {
	t.Helper()
	dir := testenv.ShortDir(t)
	header, _, _ := strings.Cut(message, "\n\n")
	commands := "iA\nS<a@example.org>\n" + login + "QAB12\nHmail.example.org\nI192.0.2.7\nEhelo.example.org\nR<b@example.net> ? ? ?\nR<c@example.net> ? ? ?\nF\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "COMMANDS"), []byte(commands), 0o600),
		os.WriteFile(filepath.Join(dir, "HEADERS"), []byte(header+"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "INPUTMSG"), []byte(message), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.Binary(t, "filter-basic"), append(flags, "--config=/dev/null", "-server")...)
	cmd.Stdin = strings.NewReader("scan AB12 " + dir + "\n")
	stdout, log, status := testenv.RunCmd(t, cmd)
	if stdout != "ok\n" || status != 0 {
		t.Fatalf("status %d, answer %q, log %q", status, stdout, log)
	}
	b, err := os.ReadFile(filepath.Join(dir, "RESULTS"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), log
}

// scanCase is a message, and what the RESULTS of it have.
type scanCase struct {
	name, message string
	want          []string
}

func scanCases(t *testing.T, cases []scanCase, flags ...string) {
	t.Helper()
	for _, tt := range cases {
		results, log := scanMessage(t, tt.message, flags...)
		for _, want := range tt.want {
			if !strings.Contains(results, want) {
				t.Errorf("%s: RESULTS %q, without %q; log %q", tt.name, results, want, log)
			}
		}
	}
}

// TestFilterBasicWithClamd has Debian's clamd, with a signature of our own, by both kinds of socket.
func TestFilterBasicWithClamd(t *testing.T) {
	t.Parallel()
	socket := startScanner(t, "clamd", map[string]string{"clamd.conf": clamdSettings, "test.ndb": clamdSignatures}, "-c", "DIR/clamd.conf")
	large := strings.Repeat(strings.Repeat("x", 70)+"\n", 2<<20/71)
	cases := []scanCase{
		{"clean", "Subject: x\n\nhello\n", []string{"clamd=clean", "HX-Filtered-By"}},
		{"virus", "Subject: x\n\nPOSTERN-VIRUS\n", []string{"B554 5.7.1 message%20contains%20a%20virus:%20Postern.Test.UNOFFICIAL\n"}},
		{"encoded virus", "Content-Type: application/x\nContent-Transfer-Encoding: base64\n\nUE9TVEVSTi1WSVJVUw==\n", []string{"B554"}},
		{"larger than clamd takes", "Subject: x\n\n" + large, []string{"T451 4.7.1 message%20could%20not%20be%20scanned"}},
	}
	scanCases(t, cases, "--clamd="+socket)
	scanCases(t, cases[:2], "--clamd="+portFor(t, socket))
	scanCases(t, cases[:2], "--clamd=/nonexistent/socket", "--clamd="+socket)
}

// portFor passes connections on from a port of 127.0.0.1 to a socket, and returns the port's address.
func portFor(t *testing.T, socket string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := testenv.Connect("unix", socket)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in) }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return l.Addr().String()
}

// TestFilterBasicWithRspamd has Debian's rspamd, with rules of our own.
func TestFilterBasicWithRspamd(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // rspamd becomes another user
	socket := startScanner(t, "rspamd", map[string]string{"rspamd.conf": rspamdSettings, "rules.lua": rspamdRules, "tlds": "com\norg\n"},
		"-f", "-c", "DIR/rspamd.conf", "-u", "_rspamd", "-g", "_rspamd")
	scanCases(t, []scanCase{
		{"clean", "Subject: x\n\nhello\n", []string{"rspamd=clean%20(no%20action)", "HX-Filtered-By"}},
		{"spam", "Subject: spam\nX-Old: 1\nX-Old: 2\n\nhello\n", []string{"HX-Filter-Warning message%20looks%20like%20spam",
			"rspamd=spam%20(add%20header)%20score=7.0/15.0%20symbols=POSTERN_MARK", "JX-Old 2\nJX-Old 1\n",
			"HX-Seen a@example.org%20bob%20helo.example.org%20192.0.2.7%202\n"}},
		{"refused", "Subject: reject\n\nhello\n", []string{"B554 5.7.1 message%20refused%20as%20spam\n"}},
	}, "--rspamd="+socket)
}

// TestFilterBasicWithSpamd has Debian's spamd, with rules of our own.
func TestFilterBasicWithSpamd(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // spamd becomes another user
	socket := startScanner(t, "spamd", map[string]string{"rules/local.cf": spamdSettings, "site/init.pre": spamdPlugins, "home/x": ""},
		"-L", "-x", "-m", "1", "--socketpath=DIR/spamd", "-C", "DIR/rules", "--siteconfigpath=DIR/site", "-H", "DIR/home", "-u", "nobody", "-s", "stderr")
	cases := []scanCase{
		{"clean", "Subject: x\n\nhello\n", []string{"spamd=clean%20score=0.0/5.0", "HX-Filtered-By"}},
		{"spam", "Subject: x\nX-Spam-Status: forged\n\nPOSTERN-SPAM\n", []string{"HX-Filter-Warning", "spamd=spam%20score=10.0/5.0%20symbols=POSTERN_TEST"}},
	}
	scanCases(t, cases, "--spamd="+socket)
	cases[1].want = append(cases[1].want, "JX-Spam-Status 1\n", "HX-Spam-Flag YES\n", "HX-Spam-Status Yes,")
	scanCases(t, cases, "--spamd="+socket, "--spamd-headers=yes")
}
