package test

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// peerClient is a real program that sends a message to the proxy, in one of its ways.
type peerClient struct {
	program string
	way     string
	with    string // the protocol our Received field is to name
	longest int    // line of the message
	tail    string // what the program adds to the message of its own
	auth    bool   // ann is to be logged in at the next hop
	from    string // sender as the server is to see it, with its parameters
	send    func(t *testing.T, d *frontDoor, message string)
}

const (
	peerUser, peerPassword = "ann", "secret"
	peerFrom               = "<ann@example.org>"
	longLine               = 20000 // longer than RFC 5321 promises to carry
)

// peerClients are all ways of the clients that need no server of their own.
var peerClients = []peerClient{
	{"swaks", "plain", "ESMTP", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.port, inFile(t, stuffed(message)+".\r\n"), "--no-data-fixup")
	}},
	{"swaks", "HELO", "SMTP", longLine, "\r\n", false, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.port, inFile(t, message), "--protocol", "SMTP")
	}},
	{"swaks", "pipelining", "ESMTP", longLine, "\r\n", false, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.port, inFile(t, message), "--pipeline")
	}},
	{"swaks", "STARTTLS", "ESMTPS", longLine, "\r\n", false, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.port, inFile(t, message), "--tls", "--tls-verify", "--tls-ca-path", d.cert)
	}},
	{"swaks", "AUTH PLAIN, pipelining", "ESMTPSA", longLine, "\r\n", true, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.port, inFile(t, message), "--pipeline", "--tls", "--auth", "PLAIN", "--auth-user", peerUser, "--auth-password", peerPassword)
	}},
	{"swaks", "AUTH LOGIN", "ESMTPSA", longLine, "\r\n", true, "", func(t *testing.T, d *frontDoor, message string) {
		swaksTo(t, d, d.smtps, inFile(t, message), "--tls-on-connect", "--auth", "LOGIN", "--auth-user", peerUser, "--auth-password", peerPassword)
	}},
	{"msmtp", "plain", "ESMTP", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		msmtpTo(t, d, d.port, message, "--tls=off", "--auth=off")
	}},
	{"msmtp", "STARTTLS, AUTH", "ESMTPSA", longLine, "", true, "", func(t *testing.T, d *frontDoor, message string) {
		msmtpTo(t, d, d.port, message, "--tls=on", "--tls-starttls=on", "--auth=plain")
	}},
	{"msmtp", "TLS, AUTH LOGIN", "ESMTPSA", longLine, "", true, "", func(t *testing.T, d *frontDoor, message string) {
		msmtpTo(t, d, d.smtps, message, "--tls=on", "--tls-starttls=off", "--auth=login")
	}},
	{"curl", "smtp", "ESMTP", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		curlTo(t, fmt.Sprintf("smtp://127.0.0.1:%d/client.example.org", d.port), message)
	}},
	{"curl", "STARTTLS, AUTH", "ESMTPSA", longLine, "", true, "", func(t *testing.T, d *frontDoor, message string) {
		curlTo(t, fmt.Sprintf("smtp://127.0.0.1:%d/client.example.org", d.port), message, "--ssl-reqd", "--cacert", d.cert,
			"--user", peerUser+":"+peerPassword, "--login-options", "AUTH=PLAIN", "--sasl-ir")
	}},
	{"curl", "smtps", "ESMTPS", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		curlTo(t, fmt.Sprintf("smtps://127.0.0.1:%d/client.example.org", d.smtps), message, "--cacert", d.cert)
	}},
	{"python3", "8BITMIME", "ESMTP", longLine, "", false, peerFrom + " BODY=8BITMIME", func(t *testing.T, d *frontDoor, message string) {
		smtplibTo(t, d, message, `server.sendmail("ann@example.org", ["bob@example.net"], message, ["BODY=8BITMIME"])`)
	}},
	{"python3", "SMTPUTF8", "UTF8SMTP", longLine, "", false, "<änn@example.org> SMTPUTF8 BODY=8BITMIME", func(t *testing.T, d *frontDoor, message string) {
		smtplibTo(t, d, message, `server.sendmail("\u00e4nn@example.org", ["bob@example.net"], message, ["SMTPUTF8", "BODY=8BITMIME"])`)
	}},
	{"python3", "STARTTLS, AUTH", "ESMTPSA", longLine, "", true, peerFrom + " BODY=8BITMIME", func(t *testing.T, d *frontDoor, message string) {
		smtplibTo(t, d, message, `server.starttls(context=ssl.create_default_context(cafile=sys.argv[3]))`, `server.login("ann", "secret")`,
			`server.sendmail("ann@example.org", ["bob@example.net"], message, ["BODY=8BITMIME"])`)
	}},
	{"openssl", "s_client -starttls smtp", "ESMTPS", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		sClientTo(t, message, d.cert, "-connect", d.address(), "-starttls", "smtp", "-name", "client.example.org")
	}},
	{"openssl", "s_client", "ESMTPS", longLine, "", false, "", func(t *testing.T, d *frontDoor, message string) {
		sClientTo(t, message, d.cert, "-connect", fmt.Sprintf("127.0.0.1:%d", d.smtps))
	}},
}

// TestRealClients has every client send a message in each of its ways, to a server that records it.
func TestRealClients(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "SIZE 100000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN")
	b.Answer(answerAuth)
	d := startFrontDoor(t, "smtp://"+b.Addr).await()
	sent := 0
	for i, c := range peerClients {
		t.Run(c.program+" "+c.way, func(t *testing.T) {
			testenv.Need(t, c.program+" as a client", c.program)
			before := len(b.Commands())
			subject := fmt.Sprintf("client-%d-%s", i, c.program)
			message := peerMessage(subject, c.longest)
			sent++
			c.send(t, d, message)
			m, received := arrivedOnce(t, b, subject, message+c.tail)
			if len(received) != 1 || !strings.Contains(received[0], " with "+c.with+" id ") || !strings.Contains(received[0], "[127.0.0.1]") {
				t.Errorf("want one Received field with %s:\n%s", c.with, received)
			}
			if got, want := sizeParameter.ReplaceAllString(m.From, ""), cmp.Or(c.from, peerFrom); got != want {
				t.Errorf("sender %s, want %s", m.From, want)
			}
			if got := loggedIn(b.Commands()[before:]); got != c.auth {
				t.Errorf("logged in at the server: %v, want %v", got, c.auth)
			}
		})
	}
	d.stop()
	if n := len(b.Messages()); !t.Failed() && n != sent {
		t.Errorf("%d messages at the server, want %d", n, sent)
	}
}

// TestRealClientFiltered has a message go by way of a working directory and a filter worker: its body must not change.
func TestRealClientFiltered(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	port := testenv.FreePort(t)
	startGatewayTo(t, "smtp://"+b.Addr, port, "--hostname", "proxy.example.org")
	for _, size := range []int{0, 5 << 20} {
		subject := fmt.Sprintf("filtered-%d", size)
		message := messageOfSize(subject, size)
		curlTo(t, fmt.Sprintf("smtp://127.0.0.1:%d/client.example.org", port), message)
		all := arrived(b, subject)
		if len(all) != 1 {
			t.Fatalf("message %s has arrived %d times", subject, len(all))
		}
		_, rest := splitReceived(all[0].Data)
		header, body, _ := strings.Cut(rest, "\r\n\r\n")
		wantHeader, want, _ := strings.Cut(message, "\r\n\r\n")
		sameText(t, "body", body, want)
		if added, ok := strings.CutPrefix(header, wantHeader+"\r\n"); !ok || !strings.HasPrefix(added, "X-Filtered-By: ") || strings.Contains(added, "\r\n") {
			t.Errorf("header:\n%s\nwant one more field than in:\n%s", header, wantHeader)
		}
	}
}

// TestRealClientXClient has swaks speak for another client, which only those may do who are trusted.
func TestRealClientXClient(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	d := startFrontDoor(t, "smtp://"+b.Addr, "--xclient-from", "127.0.0.2").await()
	message := peerMessage("xclient", 900)
	file := inFile(t, stuffed(message)+".\r\n")
	xclient := []string{"--no-data-fixup", "--xclient", "NAME=mx.example.com ADDR=192.0.2.5 HELO=inner.example.com"}
	swaksTo(t, d, d.port, file, append(xclient, "--local-interface", "127.0.0.2")...)
	if _, received := arrivedOnce(t, b, "xclient", message); !strings.Contains(received[0], "(mx.example.com [192.0.2.5])") {
		t.Errorf("want mx.example.com and its address in %s", received[0])
	}
	swaks := exec.Command(testenv.Path(t, "swaks as a client", "swaks"), append(xclient, "--server", d.address(), "--helo", "client.example.org",
		"--from", "ann@example.org", "--to", "bob@example.net", "--data", "@"+file, "--local-interface", "127.0.0.3")...)
	if stdout, _, status := testenv.RunCmd(t, swaks); status == 0 || len(arrived(b, "xclient")) != 1 {
		t.Errorf("a stranger may speak for others: status %d\n%s", status, stdout)
	}
	d.stop()
}

// sizeParameter is given by some clients, in letters of either case.
var sizeParameter = regexp.MustCompile(`(?i) SIZE=\d+`)

// answerAuth is the server's half of AUTH: it takes ann with her password, and nobody else.
func answerAuth(a testenv.Asked) string {
	if a.Verb != "AUTH" {
		return ""
	}
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	switch a.Line {
	case "AUTH PLAIN " + encode("\x00"+peerUser+"\x00"+peerPassword), encode("\x00" + peerUser + "\x00" + peerPassword), encode(peerPassword):
		return "235 2.7.0 Welcome"
	case "AUTH PLAIN":
		return "334 "
	case "AUTH LOGIN":
		return "334 " + encode("Username:")
	case "AUTH LOGIN " + encode(peerUser), encode(peerUser):
		return "334 " + encode("Password:")
	}
	return "535 5.7.8 No"
}

// loggedIn looks for the last line that answerAuth wants among commands.
func loggedIn(commands []string) bool {
	return slices.ContainsFunc(commands, func(c string) bool {
		asked := testenv.Asked{Verb: "AUTH", Line: c}
		return strings.HasPrefix(answerAuth(asked), "235")
	})
}

func swaksTo(t *testing.T, _ *frontDoor, port int, file string, args ...string) {
	t.Helper()
	args = append([]string{"--server", fmt.Sprintf("127.0.0.1:%d", port), "--helo", "client.example.org", "--from", "ann@example.org",
		"--to", "bob@example.net", "--data", "@" + file, "--timeout", "180"}, args...)
	runClient(t, exec.Command(testenv.Path(t, "swaks as a client", "swaks"), args...))
}

func msmtpTo(t *testing.T, d *frontDoor, port int, message string, args ...string) {
	t.Helper()
	args = append([]string{"--file=/dev/null", "--host=127.0.0.1", fmt.Sprintf("--port=%d", port), "--domain=client.example.org", "--from=ann@example.org",
		"--user=" + peerUser, "--passwordeval=echo " + peerPassword, "--tls-trust-file=" + d.cert, "--timeout=180"}, append(args, "bob@example.net")...)
	cmd := exec.Command(testenv.Path(t, "msmtp as a client", "msmtp"), args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.Stdin = strings.NewReader(lf(message)) // as a sendmail it is given lines of the system
	runClient(t, cmd)
}

func curlTo(t *testing.T, url, message string, args ...string) {
	t.Helper()
	args = append([]string{"--disable", "--silent", "--show-error", "--max-time", "180", "--mail-from", "ann@example.org", "--mail-rcpt", "bob@example.net",
		"--upload-file", inFile(t, message)}, append(args, url)...)
	runClient(t, exec.Command(testenv.Path(t, "curl as a client", "curl"), args...))
}

func smtplibTo(t *testing.T, d *frontDoor, message string, steps ...string) {
	t.Helper()
	script := "import smtplib, ssl, sys\nmessage = open(sys.argv[2], 'rb').read()\n" +
		"with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), 'client.example.org', timeout=180) as server:\n    server.ehlo()\n    " + strings.Join(steps, "\n    ") + "\n"
	runClient(t, exec.Command(testenv.Path(t, "smtplib as a client", "python3"), "-c", script, fmt.Sprint(d.port), inFile(t, message), d.cert))
}

// runClient runs a client, which must be content.
func runClient(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	stdout, stderr, status := testenv.RunCmd(t, cmd)
	if status != 0 {
		t.Fatalf("%s: status %d\n%.4000s\n%.2000s", filepath.Base(cmd.Path), status, stdout, stderr)
	}
}

// sClientTo speaks SMTP through openssl, as administrators do by hand.
func sClientTo(t *testing.T, message, cert string, args ...string) {
	t.Helper()
	cmd := exec.Command(testenv.Path(t, "openssl as a client", "openssl"), append([]string{"s_client", "-quiet", "-CAfile", cert, "-verify_return_error"}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	if err := testenv.Patient(read); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	p := testenv.Start(t, cmd)
	write.Close()
	r := bufio.NewReader(read)
	for _, step := range []struct{ send, want string }{
		{"EHLO client.example.org\r\n", "250 "}, {"MAIL FROM:<ann@example.org>\r\n", "250 2.1.0"}, {"RCPT TO:<bob@example.net>\r\n", "250 "},
		{"DATA\r\n", "354 "}, {stuffed(message) + ".\r\n", "250 2.0.0"}, {"QUIT\r\n", "221 "},
	} {
		if _, err := io.WriteString(in, step.send); err != nil {
			t.Fatal(err)
		}
		for line := ""; !strings.HasPrefix(line, step.want); {
			if line, err = r.ReadString('\n'); err != nil || line[0] > '3' {
				t.Fatalf("%.60q: got %q, %v; want %s", step.send, line, err, step.want)
			}
		}
	}
	in.Close()
	p.Wait()
}
