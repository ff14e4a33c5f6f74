package test

import (
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// milterFilter accepts, rejects and puts off by sender and recipient, adds a header
// field, and replaces parts with a certain name.
const milterFilter = `
sub filter_sender { my ($s) = @_; return ('REJECT', 'no such sender') if $s =~ /bad/; return ('CONTINUE', 'ok') }
sub filter_recipient { my ($r) = @_; return ('TEMPFAIL', 'come back') if $r =~ /later/; return ('CONTINUE', 'ok') }
sub filter_begin { my ($e) = @_; action_bounce('nothing for you') if $Subject =~ /refuse me/; }
sub filter { my ($e, $name, $ext, $type) = @_; return action_replace_with_warning('A program was here.') if $ext eq '.exe'; return action_accept() }
sub filter_end { action_add_header('X-Seen-By-Filter', 'yes') }
1;
`

// TestMilterThroughOurMultiplexor is a MIMEDefang installation as it is, with our
// multiplexor in the middle: Postfix, the mimedefang milter, mimedefang.pl.
func TestMilterThroughOurMultiplexor(t *testing.T) {
	t.Parallel()
	milter := testenv.Path(t, "the mimedefang milter with our multiplexor", "mimedefang")
	worker := testenv.Path(t, "the mimedefang milter with our multiplexor", "mimedefang.pl")
	testenv.NeedRoot(t)
	filter := filepath.Join(testenv.ShortDir(t), "filter")
	if err := os.WriteFile(filter, []byte(milterFilter), 0o644); err != nil {
		t.Fatal(err)
	}
	mx := startMultiplexor(t, ourMultiplexor(t), worker, "-F", filter, "-x", "3", "-m", "1", "-Z", "-l", "--scan-below-spool")
	port := testenv.FreePort(t)
	account, _ := testenv.DaemonAccount()
	m := testenv.Start(t, exec.Command(milter, "-D", "-U", account, "-p", fmt.Sprintf("inet:%d@127.0.0.1", port), "-m", mx.path("s"), "-z", mx.dir, "-r", "-H", "-s", "-t"))
	testenv.Eventually(t, "the milter", func() bool {
		if !m.Running() {
			t.Fatal("the milter has ended")
		}
		conn, err := testenv.Connect("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	server := testenv.StartPostfix(t, fmt.Sprintf("smtpd_milters = inet:127.0.0.1:%d\nmilter_default_action = tempfail\n", port), "")

	send := func(from, to, content string) error {
		c, err := smtp.Dial(server.Address())
		if err != nil {
			return err
		}
		defer c.Close()
		for _, step := range []func() error{func() error { return c.Mail(from) }, func() error { return c.Rcpt(to) }} {
			if err := step(); err != nil {
				return err
			}
		}
		w, err := c.Data()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\n%s", from, to, strings.ReplaceAll(content, "\n", "\r\n"))
		return w.Close()
	}
	const attachment = "Subject: two parts\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nsee below\n--b\nContent-Type: application/octet-stream; name=\"tool.exe\"\nContent-Disposition: attachment; filename=\"tool.exe\"\n\nMZ program bytes\n--b--\n"
	tests := []struct{ name, from, to, content, want string }{
		{"accept", "a@example.org", "x@example.net", "Subject: clean\n\nhello\n", ""},
		{"bad sender", "bad@example.org", "x@example.net", "Subject: x\n\nx\n", "5.7.1 no such sender"},
		{"recipient later", "a@example.org", "later@example.net", "Subject: x\n\nx\n", "4.3.0 come back"},
		{"bounce", "a@example.org", "x@example.net", "Subject: refuse me\n\nx\n", "nothing for you"},
		{"replaced part", "a@example.org", "y@example.net", attachment, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := send(tt.from, tt.to, tt.content)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if got := server.AwaitDelivered("Subject: clean"); !strings.Contains(got, "X-Seen-By-Filter: yes") {
		t.Errorf("no header field of the filter:\n%s", got)
	}
	if got := server.AwaitDelivered("Subject: two parts"); !strings.Contains(got, "A program was here.") || strings.Contains(got, "MZ program bytes") {
		t.Errorf("the part was not replaced:\n%s", got)
	}
	if got := mx.ask("msgs\n"); got != "3\n" {
		t.Errorf("msgs %q, want 3", got)
	}
}
