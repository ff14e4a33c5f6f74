package workdir

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/internal/testenv"
)

// filter is read by the real mimedefang.pl. It looks at everything the directory tells about a message.
const filter = `use strict; use warnings;
sub filter_sender { read_commands_file();
    action_add_header('X-Macro', $main::SendmailMacros{'j'} // 'none'); return ('CONTINUE', 'ok'); }
sub filter_recipient { my ($rcpt, $sender, $ip, $name, $first, $helo, $mailer) = @_;
    return ('REJECT', "not $rcpt", 550, '5.1.1') if $rcpt =~ /nobody/;
    return ('CONTINUE', "$helo $mailer"); }
sub filter_begin { my ($entity) = @_; no strict 'vars'; no warnings;
    return action_bounce("refused: $Subject", 550, '5.7.9') if $Subject =~ /refuse/;
    action_add_header('X-Seen', "$Sender|@Recipients|$QueueID|$MIMEDefangID|$RelayAddr|$RelayHostname|$Helo|$Subject|$MessageID");
    action_add_header('X-Marks', "$SuspiciousCharsInHeaders$SuspiciousCharsInBody");
    action_delete_all_headers('X-Twice'); }
sub filter { my ($entity, $fname, $ext, $type) = @_;
    return action_drop() if $ext =~ /exe/i;
    return action_accept(); }
1;
`

// TestRealWorker lets Debian's mimedefang.pl judge and scan directories of ours.
func TestRealWorker(t *testing.T) {
	program := testenv.Path(t, "working directories read by mimedefang.pl", "mimedefang.pl")
	s := newSpool(t)
	filterFile := filepath.Join(t.TempDir(), "filter.pl")
	if err := os.WriteFile(filterFile, []byte(filter), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", filterFile, "-server")
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	worker := testenv.Start(t, cmd)
	t.Cleanup(func() { _ = in.Close(); worker.Wait() })
	answers := bufio.NewReader(out)
	ask := func(request, want string) {
		t.Helper()
		if _, err := fmt.Fprintln(in, request); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); err != nil || got != want+"\n" {
			t.Fatalf("%s: answer %q, %v; want %q", request, got, err, want)
		}
	}
	ask("ping", "PONG")

	message := "Received: from a\r\n\tby b\r\nSubject: two\r\n words\r\nMessage-ID: <1@x>\r\nX-Twice: 1\r\nx-twice:2\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=b\r\nContent-Type: text/plain\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/x; name=\"a.exe\"\r\n\r\nMZ\r\n--b--\r\n"
	d := start(t, s, message, func(d *Dir) {
		ask("senderok <a%20b@x> 192.0.2.7 host helo "+d.Path()+" "+"Q1", "ok 1 ok 250 2.1.0 0")
		ask("recipok <c@y> <a@x> 192.0.2.7 host <c@y> helo "+d.Path()+" Q1 smtp ? ?", "ok 1 helo%20smtp 250 2.1.0 0")
		ask("recipok <nobody@y> <a@x> 192.0.2.7 host <c@y> helo "+d.Path()+" Q1 ? ? ?", "ok 0 not%20<nobody@y> 550 5.1.1 0")
	})
	ask("scan Q1 "+d.Path(), "ok")
	got, err := d.Results()
	if err != nil {
		t.Fatal(err)
	}
	want := &Results{NewBody: true, Changes: []Change{
		{'H', "X-Macro", "mx.example.org", 0},
		{'H', "X-Seen", "<a b@x>|<c@y> <d@y>|Q1|ivED000|192.0.2.7|host.example|helo name|two words|<1@x>", 0},
		{'H', "X-Marks", "00", 0},
		{'J', "X-Twice", "", 2}, {'J', "X-Twice", "", 1},
		{'M', "", "multipart/mixed;\n boundary=b", 0},
	}}
	ignore := cmpopts.IgnoreSliceElements(func(c Change) bool { return c.Letter == 'M' })
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Results{}, "Skipped"), ignore); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	body, err := d.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()

	d = start(t, s, "Subject: refuse this\r\n\r\nx\r\n", nil)
	ask("scan Q2 "+d.Path(), "ok")
	got, err = d.Results()
	if err != nil || got.Verdict != Reject || got.Code != "550" || got.DSN != "5.7.9" || got.Text != "refused: refuse this" {
		t.Errorf("refused: %+v, %v", got, err)
	}
	if err := d.Remove(); err != nil {
		t.Error(err)
	}
	ask("ping", "PONG")
}

// start makes a directory up to the end of the message; between, if not nil, runs after MAIL.
func start(t *testing.T, s *Spool, message string, between func(*Dir)) *Dir {
	t.Helper()
	d := newDir(t, s)
	err := d.Envelope(Envelope{ID: "ivED000", Sender: "<a b@x>", QueueID: "Q1", ClientName: "host.example", ClientIP: "192.0.2.7",
		Helo: "helo name", HasHelo: true, Macros: [][2]string{{"j", "mx.example.org"}}})
	if err != nil {
		t.Fatal(err)
	}
	if between != nil {
		between(d)
	}
	for _, r := range []string{"<c@y>", "<d@y>"} {
		if err := d.Recipient(Recipient{Address: r}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	return d
}
