package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// A mailClient sends the message in a file to the server at a port, and gives
// the code of the reply to the message.
type mailClient func(t *testing.T, port int, file string) (code string)

var mailClients = map[string]mailClient{"swaks": sendWithSwaks, "smtplib": sendWithSmtplib}

func sendWithSwaks(t *testing.T, port int, file string) string {
	swaks := testenv.Path(t, "swaks as a client", "swaks")
	stdout, stderr, _ := testenv.Run(t, swaks, "--server", fmt.Sprintf("127.0.0.1:%d", port), "--helo", "client.example.org",
		"--from", "ann@example.org", "--to", "bob@example.net", "--local-interface", "127.0.0.2", "--data", "@"+file)
	// The reply to the message follows the final dot.
	m := regexp.MustCompile(`(?m)^ -> \.\n<(?:-|\*\*) +(\d{3}) `).FindStringSubmatch(stdout)
	if m == nil {
		t.Fatalf("swaks shows no reply to the message:\n%s%s", stdout, stderr)
	}
	return m[1]
}

const smtplibClient = `
import smtplib, sys
message = open(sys.argv[2]).read()
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), "client.example.org", timeout=30) as server:
    server.ehlo_or_helo_if_needed()
    for reply in (server.mail("ann@example.org"), server.rcpt("bob@example.net")):
        assert reply[0] == 250, reply
    print(server.data(message)[0])
`

func sendWithSmtplib(t *testing.T, port int, file string) string {
	python := testenv.Path(t, "Python's smtplib as a client", "python3")
	stdout, stderr, status := testenv.Run(t, python, "-c", smtplibClient, fmt.Sprint(port), file)
	if status != 0 {
		t.Fatalf("smtplib: status %d\n%s%s", status, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// gtube is the generic test for unsolicited bulk email, in two pieces so that
// no filter takes this file for it.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// TestMainJob sends the three messages that the suite is shown with, from real
// clients through the real programs.
func TestMainJob(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	head := "From: Ann <ann@example.org>\nTo: Bob <bob@example.net>\nSubject: subject\nMessage-ID: <1@example.org>\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
	messages := []struct {
		name, text string
		code       string
		arrives    func(message string) bool // nil: nothing may arrive
	}{
		{"clean", head + "\nHello\n.\n..two dots\n", "250", func(message string) bool {
			message = strings.TrimSuffix(message, "\n") // swaks sends an empty line more
			return strings.HasSuffix(strings.TrimSuffix(message, "\n"), "\n\nHello\n.\n..two dots") && strings.Contains(message, "\nReceived: ") && strings.Contains(message, "\nX-Filtered-By: ")
		}},
		{"GTUBE", head + "\n" + gtube + "\n", "554", nil},
		{"attachment", head + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nthe text\n--b\n" +
			"Content-Type: application/octet-stream; name=invoice.pdf.exe\nContent-Transfer-Encoding: base64\n\nTVqQAAMAAAAEAAAA\n--b--\n",
			"554", nil},
	}
	for client, send := range mailClients {
		for _, m := range messages {
			t.Run(client+"/"+m.name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "message")
				if err := os.WriteFile(file, []byte(m.text), 0o644); err != nil {
					t.Fatal(err)
				}
				before := len(g.delivered(t))
				if code := send(t, g.port, file); code != m.code {
					t.Errorf("reply %s, want %s", code, m.code)
				}
				arrived := g.delivered(t)
				switch {
				case m.arrives == nil && len(arrived) != before:
					t.Errorf("a refused message was delivered: %q", arrived)
				case m.arrives != nil && len(arrived) != before+1:
					t.Errorf("%d messages were delivered, want 1", len(arrived)-before)
				case m.arrives != nil:
					found := 0
					for _, message := range arrived {
						if m.arrives(message) {
							found++
						}
					}
					if found == 0 {
						t.Errorf("not delivered as it should be; in the Maildir:\n%s", strings.Join(arrived, "\n=====\n"))
					}
				}
			})
		}
	}
	left, err := os.ReadDir(g.spool)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), "mdefang-") {
			t.Errorf("working directory %s is left", entry.Name())
		}
	}
	for name, p := range map[string]*testenv.Process{"smtp-proxy": g.proxy, "multiplexor": g.multiplexor} {
		p.Stop(syscall.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("%s ended with status %d", name, status)
		}
	}
}

// TestDemo runs what `make demo` runs.
func TestDemo(t *testing.T) {
	t.Parallel()
	bin := testenv.ShortDir(t)
	for _, program := range []string{"smtp-proxy", "multiplexor", "mx-ctrl", "filter-basic", "notify-cat", "demo"} {
		if err := os.Symlink(testenv.Binary(t, program), filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	tmp := testenv.ShortDir(t)
	// Root may have it that others read nothing.
	cmd := exec.Command("sh", "-c", `umask 077 && exec "$0" "$@"`, filepath.Join(bin, "demo"), "-bin", bin)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	stdout, stderr, status := testenv.RunCmd(t, cmd)
	if status != 0 {
		t.Fatalf("status %d\n%s%s", status, stdout, stderr)
	}
	for _, want := range []string{"S: 220 ", "C: EHLO ", "event ", "All three messages had the right outcome."} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}

	// With -stay it ends at an interrupt, and as cleanly.
	cmd = exec.Command(filepath.Join(bin, "demo"), "-bin", bin, "-stay")
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	p := testenv.Start(t, cmd)
	p.WaitOutput("runs until you press Ctrl-C")
	p.Stop(os.Interrupt)
	if status := p.Wait(); status != 0 {
		t.Errorf("-stay ended with status %d:\n%s", status, p.Output())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("-stay left in the temporary directory: %v, %v", left, err)
	}
}

// TestDemoSeesAWrongOutcome makes sure that the demo can fail: with a filter
// that passes everything it must.
func TestDemoSeesAWrongOutcome(t *testing.T) {
	t.Parallel()
	bin := testenv.ShortDir(t)
	for _, program := range []string{"smtp-proxy", "multiplexor", "mx-ctrl", "notify-cat", "demo"} {
		if err := os.Symlink(testenv.Binary(t, program), filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	careless := "#!/bin/sh\nwhile read -r verb id dir rest; do\n" +
		"case $verb in\nping) echo PONG;;\nscan) echo F >\"$dir/RESULTS\"; echo ok;;\n*) echo 'ok 1';;\nesac\ndone\n"
	if err := os.WriteFile(filepath.Join(bin, "filter-basic"), []byte(careless), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "demo"), "-bin", bin)
	stdout, stderr, status := testenv.RunCmd(t, cmd)
	if status != 1 || !strings.Contains(stderr, "wrong outcome: clean, GTUBE, invoice.pdf.exe") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}
