package test

import (
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// frontDoor is smtp-proxy without a filter, as a real program.
type frontDoor struct {
	t           *testing.T
	port, smtps int
	cert        string // that it shows
	process     *testenv.Process
}

// startFrontDoor starts smtp-proxy in front of a server, with STARTTLS and a port for TLS, and waits for its greeting.
func startFrontDoor(t *testing.T, upstream string, args ...string) *frontDoor {
	t.Helper()
	d := &frontDoor{t: t, port: testenv.FreePort(t), smtps: testenv.FreePort(t)}
	var key string
	dir := testenv.ShortDir(t)
	d.cert, key = testenv.Certificate(t, dir)
	none := filepath.Join(dir, "none.conf") // this machine may have settings of its own
	if err := os.WriteFile(none, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append([]string{"--user", account}, args...)
	}
	args = append([]string{"--config", none, "--maxloadavg", "0", "--hostname", "proxy.example.org", "--log-level", "debug", "--smtp", "tcp:" + d.address(),
		"--smtps", fmt.Sprintf("tcp:127.0.0.1:%d", d.smtps), "--tls-cert", d.cert, "--tls-key", key, "--upstream", upstream}, args...)
	d.process = testenv.Start(t, exec.Command(testenv.Binary(t, "smtp-proxy"), args...))
	return d
}

// await waits for the greeting.
func (d *frontDoor) await() *frontDoor {
	d.t.Helper()
	testenv.Eventually(d.t, "the proxy's greeting", func() bool {
		if !d.process.Running() {
			d.t.Fatal("smtp-proxy has ended")
		}
		return greets(d.address())
	})
	return d
}

// stop ends the proxy, which must be clean.
func (d *frontDoor) stop() {
	d.t.Helper()
	d.process.Stop(syscall.SIGTERM)
	if status := d.process.Wait(); status != 0 {
		d.t.Errorf("smtp-proxy ended with status %d", status)
	}
}

func (d *frontDoor) address() string { return fmt.Sprintf("127.0.0.1:%d", d.port) }

// peerMessage makes a message with what is easily damaged on the way: bytes beyond ASCII, leading dots, blanks at line
// ends, lines that look like others, and one line of the longest length.
func peerMessage(subject string, longest int) string {
	var all strings.Builder
	for b := 0x80; b <= 0xff; b++ {
		all.WriteByte(byte(b))
	}
	return "From: Ann <ann@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject + "@example.org>\r\n" +
		"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n" +
		"X-Folded: one\r\n\ttwo\r\n three\r\n\r\n" +
		"Grüße aus Łódź, 日本\r\n" + all.String() + "\r\n.\r\n..\r\n...\r\n.dot\r\n..dots\r\n. \r\n\t.\r\nblanks at the end \t \r\n\r\n\r\n" +
		"From here it goes on\r\n>From there\r\nQUIT\r\nDATA\r\n=3D =\r\n--\r\n-- \r\n" + strings.Repeat("x", longest-1) + ".\r\n.\r\nlast line of " + subject + "\r\n"
}

// messageOfSize makes a message of at least so many bytes.
func messageOfSize(subject string, size int) string {
	m := []byte(peerMessage(subject, 900))
	for i := 0; len(m) < size; i++ {
		m = fmt.Appendf(m, ".%08d the quick brown fox jumps over the lazy dog, and so on and on\r\n", i)
	}
	return string(m)
}

// inFile writes a message into a file.
func inFile(t *testing.T, message string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte(message), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func lf(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// receivedField is one at the beginning of a message.
var receivedField = regexp.MustCompile(`^Received:[^\n]*\n(?:[ \t][^\n]*\n)*`)

// splitReceived cuts off the Received fields on top.
func splitReceived(message string) (received []string, rest string) {
	for {
		field := receivedField.FindString(message)
		if field == "" {
			return received, message
		}
		received, message = append(received, field), message[len(field):]
	}
}

// arrived gives the messages with a subject that the next hop has.
func arrived(b *testenv.Backend, subject string) []testenv.Received {
	var found []testenv.Received
	for _, m := range b.Messages() {
		if strings.Contains(m.Data, "\r\nSubject: "+subject+"\r\n") {
			found = append(found, m)
		}
	}
	return found
}

// arrivedOnce waits for a message, and sees that it is there once and as it was sent, behind our Received field.
func arrivedOnce(t *testing.T, b *testenv.Backend, subject, want string) (m testenv.Received, received []string) {
	t.Helper()
	testenv.Eventually(t, "message "+subject+" at the server", func() bool { return len(arrived(b, subject)) > 0 })
	all := arrived(b, subject)
	if len(all) != 1 {
		t.Fatalf("message %s has arrived %d times", subject, len(all))
	}
	received, rest := splitReceived(all[0].Data)
	if len(received) == 0 || !strings.Contains(received[0], "by proxy.example.org (Postern)") {
		t.Errorf("message %s begins with\n%.500s", subject, all[0].Data)
	}
	sameText(t, "message "+subject, rest, want)
	return all[0], received
}

// sameText says where two long texts begin to differ.
func sameText(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	from := max(0, i-60)
	t.Errorf("%s: %d bytes, want %d; they differ from byte %d on:\n got %.120q\nwant %.120q", what, len(got), len(want), i, got[from:], want[from:])
}

// talk is a client that does what a test says, step by step.
type talk struct {
	*textproto.Conn
	t *testing.T
}

// startTalk connects from an address of this machine, and says EHLO.
func startTalk(t *testing.T, from, to string) *talk {
	t.Helper()
	conn := dialFrom(t, from, to)
	c := &talk{Conn: textproto.NewConn(conn), t: t}
	c.expect("greeting", 220)
	c.say("EHLO client.example.org", 250)
	return c
}

// say sends a command and wants a code.
func (c *talk) say(command string, code int) string {
	c.t.Helper()
	if err := c.PrintfLine("%s", command); err != nil {
		c.t.Fatalf("%s: %v", command, err)
	}
	return c.expect(command, code)
}

func (c *talk) expect(what string, code int) string {
	c.t.Helper()
	got, text, err := c.ReadResponse(0)
	if got == 0 || got != code {
		c.t.Fatalf("%s: %d %s, %v; want %d", what, got, text, err, code)
	}
	return text
}

// offer sends a message, to bob if nobody else is named, and gives the first code that is not as it should be, or that of
// the message.
func (c *talk) offer(message string, to ...string) (code int, text string) {
	c.t.Helper()
	if len(to) == 0 {
		to = []string{"bob@example.net"}
	}
	commands := []string{"MAIL FROM:<ann@example.org> BODY=8BITMIME"}
	for _, rcpt := range to {
		commands = append(commands, "RCPT TO:<"+rcpt+">")
	}
	for _, command := range append(commands, "DATA") {
		if err := c.PrintfLine("%s", command); err != nil {
			c.t.Fatal(err)
		}
		if code, text, _ := c.ReadResponse(0); code != 250 && code != 354 {
			c.say("RSET", 250)
			return code, command + ": " + text
		}
	}
	c.content(message)
	if err := c.PrintfLine("."); err != nil {
		c.t.Fatal(err)
	}
	code, text, _ = c.ReadResponse(0)
	return code, text
}

// content writes content in the form of the wire, without the end of data.
func (c *talk) content(message string) {
	c.t.Helper()
	if _, err := c.W.WriteString(stuffed(message)); err != nil {
		c.t.Fatal(err)
	}
}

// stuffed gives a message as it goes over the wire.
func stuffed(message string) string {
	text := strings.ReplaceAll(message, "\r\n.", "\r\n..")
	if strings.HasPrefix(text, ".") {
		text = "." + text
	}
	return text
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
