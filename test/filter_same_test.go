package test

import (
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// noteFilter notes what it is asked and what COMMANDS says then.
const noteFilter = `
sub note {
	my ($what, @words) = @_;
	open(my $f, '>>', '%s') or die;
	print $f join(' ', $what, map { defined $_ && $_ ne '' ? $_ : '-' } @words), "\n";
	if (open(my $c, '<', 'COMMANDS')) { print $f $_ while <$c>; close($c) }
	close($f);
	return ('CONTINUE', 'ok');
}
sub filter_relay { return note('relayok', @_) }
sub filter_helo { return note('helook', @_) }
sub filter_sender { return note('senderok', @_) }
sub filter_recipient { return note('recipok', @_) }
sub filter_begin { note('scan', $Subject) }
1;
`

// own is what no two servers have in common, or where smtp-proxy tells more or otherwise, as postern-filter(7) says.
var own = regexp.MustCompile(`^(i|Q|=(client_port|daemon_name|daemon_port|i|if_addr|if_name) )`)

// TestFilterIsShownTheSame has the same clients speak to a Postfix with the mimedefang milter and to smtp-proxy: the same
// filter, mimedefang.pl behind our multiplexor, is asked and told the same.
func TestFilterIsShownTheSame(t *testing.T) {
	t.Parallel()
	const what = "the mimedefang milter and smtp-proxy, side by side"
	milter, worker := testenv.Path(t, what, "mimedefang"), testenv.Path(t, what, "mimedefang.pl")
	testenv.NeedRoot(t)
	dir := testenv.ShortDir(t)
	notes := filepath.Join(testenv.DaemonDir(t, filepath.Join(dir, "notes")), "notes")
	filter := filepath.Join(dir, "filter")
	if err := os.WriteFile(filter, fmt.Appendf(nil, noteFilter, notes), 0o644); err != nil {
		t.Fatal(err)
	}
	mx := startMultiplexor(t, ourMultiplexor(t), worker, "-F", filter, "-x", "3", "-m", "1", "-Z", "-l", "--scan-below-spool")
	milterAt := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	account, _ := testenv.DaemonAccount()
	host, port, _ := strings.Cut(milterAt, ":")
	m := testenv.Start(t, exec.Command(milter, "-D", "-U", account, "-p", "inet:"+port+"@"+host, "-m", mx.path("s"), "-z", mx.dir, "-r", "-H", "-s", "-t"))
	testenv.Eventually(t, "the milter", func() bool {
		if !m.Running() {
			t.Fatal("the milter has ended")
		}
		conn, err := testenv.Connect("tcp4", milterAt)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	next := testenv.StartBackend(t)
	server := testenv.StartPostfix(t, fmt.Sprintf("myhostname = mx.example.net\nvirtual_mailbox_domains =\ndefault_transport = smtp\nrelayhost = [127.0.0.1]:%d\n"+
		"inet_protocols = all\nmynetworks = 127.0.0.0/8, 192.0.2.0/24, [2001:db8::]/32\nsmtpd_authorized_xclient_hosts = 127.0.0.0/8\n"+
		"smtpd_milters = inet:%s\nmilter_default_action = tempfail\n", next.Port, milterAt), "")
	door := startFrontDoor(t, "smtp://"+next.Addr, "--hostname", "mx.example.net", "--multiplexor", mx.path("s"), "--spool", mx.dir, "--relayok", "--helook", "--senderok", "--recipok",
		"--xclient-from", "127.0.0.0/8", "--client-lookup=no").await()

	for _, client := range []string{
		"", "NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4000", "NAME=mail.client.example ADDR=192.0.2.7 PORT=4000", "NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::9 PORT=4000",
		"NAME=six.client.example ADDR=IPV6:2001:db8::9 PORT=4000",
	} {
		for _, from := range []string{"a@Client.Example", ""} {
			var got [2][]string
			for i, address := range []string{server.Address(), door.address()} {
				if err := os.Remove(notes); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				sendAs(t, address, client, from, "x@example.net", "Y@Other.Test")
				noted, err := os.ReadFile(notes)
				if err != nil {
					t.Fatal(err)
				}
				text := string(noted)
				if client != "" { // what was asked before XCLIENT
					_, text, _ = strings.Cut(text, "\n")
					_, text, _ = strings.Cut(text, "\n")
				}
				for line := range strings.Lines(text) {
					if line = strings.TrimRight(line, "\n"); !own.MatchString(line) {
						got[i] = append(got[i], tidyRequest(line))
					}
				}
			}
			if !slices.Equal(got[0], got[1]) {
				t.Errorf("client %q, sender %q\nwith the milter\n%s\nwith smtp-proxy\n%s", client, from, strings.Join(got[0], "\n"), strings.Join(got[1], "\n"))
			}
		}
	}
}

// tidyRequest leaves out of a request the ports and queue ids.
func tidyRequest(line string) string {
	words := strings.Fields(line)
	switch words[0] {
	case "relayok":
		return strings.Join(words[:3], " ") // IP NAME PORT MYIP MYPORT QID
	case "helook":
		return strings.Join(words[:4], " ") // IP NAME HELO PORT MYIP MYPORT QID
	}
	return line
}

// sendAs sends a message as a client that XCLIENT names.
func sendAs(t *testing.T, address, client, from string, rcpts ...string) {
	t.Helper()
	conn, err := testenv.Connect("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := textproto.NewConn(conn)
	say := func(line string, code int) {
		t.Helper()
		if line != "" {
			if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if _, text, err := c.ReadResponse(code); err != nil {
			t.Fatalf("%s: reply to %q: %v %s", address, line, err, text)
		}
	}
	say("", 220)
	if client != "" {
		say("EHLO proxy.example", 250)
		say("XCLIENT "+client, 220)
	}
	say("EHLO client.example", 250)
	say("MAIL FROM:<"+from+"> BODY=8BITMIME", 250)
	for _, rcpt := range rcpts {
		say("RCPT TO:<"+rcpt+">", 250)
	}
	say("DATA", 354)
	say("Subject: x\r\nMessage-ID: <1@client.example>\r\n\r\nx\r\n.", 250)
	say("QUIT", 221)
}
