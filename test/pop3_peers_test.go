package test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// A pop3Dialog is a client that is typed by hand.
type pop3Dialog struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dialPOP3(t *testing.T, port int, header string) *pop3Dialog {
	t.Helper()
	c := testenv.Dial(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	d := &pop3Dialog{t, c, bufio.NewReader(c)}
	if _, err := c.Write([]byte(header)); err != nil {
		t.Fatal(err)
	}
	d.want("+OK")
	return d
}

func (d *pop3Dialog) want(prefix string) {
	d.t.Helper()
	if line, err := d.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, prefix) {
		d.t.Fatalf("got %q, %v; want %q", line, err, prefix)
	}
}

func (d *pop3Dialog) ask(line, prefix string) {
	d.t.Helper()
	if _, err := d.Write([]byte(line + "\r\n")); err != nil {
		d.t.Fatal(err)
	}
	d.want(prefix)
}

// TestPop3StampTellsDovecot has Dovecot learn, and log, who the client is.
func TestPop3StampTellsDovecot(t *testing.T) {
	t.Parallel()
	dovecot := testenv.StartDovecot(t)
	behind := fmt.Sprintf("pop3://127.0.0.1:%d", dovecot.Behind)
	tests := []struct{ how, upstream, more string }{
		{"xclient", "pop3://" + dovecot.Address(), ""},
		{"xclient", "pop3://" + dovecot.Address(), "upstream-tls require"},
		{"xclient", fmt.Sprintf("pop3s://127.0.0.1:%d", dovecot.TLSPort), ""},
		{"proxy1", behind, ""},
		{"proxy2", behind, ""},
		{"proxy2", behind, "upstream-tls require"},
	}
	for i, tt := range tests {
		for family, addr := range map[string]string{"TCP4": fmt.Sprintf("192.0.2.%d", i+1), "TCP6": fmt.Sprintf("2001:db8::%d", i+1)} {
			t.Run(fmt.Sprintf("%d %s %s", i, tt.how, family), func(t *testing.T) {
				t.Parallel()
				port := testenv.FreePort(t)
				stamps := t.TempDir()
				startPop3Stamp(t, port, fmt.Sprintf("upstream %s\nupstream-client-ip %s\n%s\nclientip-dir %s\nproxy-from 127.0.0.2\nsasl PLAIN", tt.upstream, tt.how, tt.more, stamps))
				local, err := net.ResolveTCPAddr("tcp", "127.0.0.2:0")
				if err != nil {
					t.Fatal(err)
				}
				c, err := (&net.Dialer{LocalAddr: local}).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = testenv.Patient(c)
				d := &pop3Dialog{t, c, bufio.NewReader(c)}
				_, _ = fmt.Fprintf(c, "PROXY %s %s %[2]s 4444 110\r\n", family, addr)
				d.want("+OK pop.test")
				d.ask("USER bob", "+OK")
				d.ask("PASS wrong", "-ERR [AUTH] Authentication failed.")
				d.ask("USER bob", "+OK")
				d.ask("PASS "+testenv.POP3Password, "+OK")
				d.ask("QUIT", "+OK")
				testenv.Eventually(t, "the login in Dovecot's log", func() bool {
					for line := range strings.Lines(dovecot.Process.Output()) {
						if strings.Contains(line, "Login: user=<bob>") && strings.Contains(line, "rip="+addr+",") {
							return true
						}
					}
					return false
				})
				if _, err := os.Stat(filepath.Join(stamps, addr)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestPop3StampLongResponses has a token's length of password accepted by Dovecot, however it comes.
func TestPop3StampLongResponses(t *testing.T) {
	t.Parallel()
	dovecot := testenv.StartDovecot(t)
	port := testenv.FreePort(t)
	p := startPop3Stamp(t, port, fmt.Sprintf("upstream pop3://%s\nclientip-dir %s\nsasl PLAIN\nsasl LOGIN", dovecot.Address(), t.TempDir()))
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	plain := encode("\x00" + testenv.POP3LongUser + "\x00" + testenv.POP3LongPassword)
	dialPOP3(t, port, "").ask("AUTH PLAIN "+plain, "+OK")
	d := dialPOP3(t, port, "")
	d.ask("AUTH PLAIN", "+ ")
	d.ask(plain, "+OK")
	d = dialPOP3(t, port, "")
	d.ask("AUTH LOGIN "+encode(testenv.POP3LongUser), "+ ")
	d.ask(encode(testenv.POP3LongPassword), "+OK")
	d = dialPOP3(t, port, "")
	d.ask("AUTH PLAIN", "+ ")
	d.ask("*", "-ERR Authentication aborted by client.")
	d.ask("AUTH PLAIN "+plain[:len(plain)-8]+"AAAAAAAA", "-ERR [AUTH] Authentication failed.")
	if out := p.Output(); strings.Contains(out, plain[100:200]) || strings.Contains(out, "longpassword") {
		t.Error("a password is in the log")
	}
}

// poplibScript fetches mail as Python programs do.
const poplibScript = `
import poplib, sys
host, port = "127.0.0.1", int(sys.argv[1])
def told(what, *args):
    try:
        what(*args)
    except poplib.error_proto as e:
        print(e.args[0].decode())
wrong = poplib.POP3(host, port)
wrong.user("bob")
told(wrong.pass_, "wrong")
wrong.quit()
p = poplib.POP3(host, port)
p.user("bob")
p.pass_("secret word")
print(p.stat(), len(p.list()[1]), len(p.uidl()[1]))
for other in range(3):
    q = poplib.POP3(host, port)
    q.user("bob")
    told(q.pass_, "secret word")
    q.quit()
print(p.retr(1)[1][-2:])
print(p.top(1, 0)[1][0])
told(p.retr, 2)
p.dele(1)
p.rset()
p.quit()
`

// TestPop3StampBeforeMailutils has Python fetch mail from a GNU pop3d, which gives the mailbox to one session
// at a time: that it is in use is told, and held against nobody.
func TestPop3StampBeforeMailutils(t *testing.T) {
	t.Parallel()
	python := testenv.Path(t, "Python's poplib as a client", "python3")
	server := testenv.StartMailutils(t, "From a@b Sat Nov 28 11:00:00 2026\nSubject: x\n\nhello\n.dot\n\n")
	port := testenv.FreePort(t)
	startPop3Stamp(t, port, fmt.Sprintf("upstream pop3://%s\nclientip-dir %s\nmax-login-failures 2", server.Address(), t.TempDir()))
	out, stderr, status := testenv.Run(t, python, "-c", poplibScript, fmt.Sprint(port))
	want := `-ERR [AUTH] Bad login
(1, 27) 1 1
-ERR [IN-USE] Mailbox in use
-ERR [IN-USE] Mailbox in use
-ERR [IN-USE] Mailbox in use
[b'hello', b'.dot']
b'Subject: x'
-ERR No such message
`
	if status != 0 || out != want {
		t.Errorf("status %d, %q, want %q; %s", status, out, want, stderr)
	}
}
