package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// plainMessage and gtubeMessage are a message that passes the filter and one
// that does not; the first is recognised by its subject.
const (
	plainMessage = "From: ann@example.org\nTo: bob@example.net\nSubject: %s\n\nHello\n"
	gtubeMessage = "From: ann@example.org\nTo: bob@example.net\nSubject: %s\n\n" + gtube + "\n"
)

func messageFile(t *testing.T, format, subject string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, fmt.Appendf(nil, format, subject), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestInFrontOfPostfix is the example of postern(7): Postfix behind the
// gateway learns by XCLIENT who the client is.
func TestInFrontOfPostfix(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "smtpd_authorized_xclient_hosts = 127.0.0.0/8", "")
	g := startGatewayTo(t, "smtp://"+m.Address(), testenv.FreePort(t), "--upstream-client-ip", "xclient")

	if code := sendWithSwaks(t, g.port, messageFile(t, plainMessage, "in-front")); code != "250" {
		t.Errorf("reply %s, want 250", code)
	}
	got := m.AwaitDelivered("Subject: in-front")
	if !strings.Contains(got, "[127.0.0.2]") {
		t.Errorf("Postfix was not told the client's address, 127.0.0.2:\n%s", got)
	}
	if code := sendWithSwaks(t, g.port, messageFile(t, gtubeMessage, "spam")); code != "554" {
		t.Errorf("reply %s to GTUBE, want 554", code)
	}
	if n := len(m.Delivered()); n != 1 {
		t.Errorf("%d messages delivered, want 1", n)
	}
}

// TestBehindPostfix is the other example: Postfix has the gateway look at each
// message before it takes it, and gets the message back at another port.
func TestBehindPostfix(t *testing.T) {
	t.Parallel()
	port, front, back := testenv.FreePort(t), testenv.FreePort(t), testenv.FreePort(t)
	m := testenv.StartPostfix(t, "",
		fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd\n -o smtpd_proxy_filter=\n", back)+
			" -o smtpd_client_restrictions=\n -o smtpd_helo_restrictions=\n -o smtpd_sender_restrictions=\n"+
			" -o smtpd_recipient_restrictions=permit_mynetworks,reject\n -o mynetworks=127.0.0.0/8\n"+
			fmt.Sprintf("127.0.0.1:%d inet n - n - 20 smtpd\n -o smtpd_proxy_filter=127.0.0.1:%d\n", front, port))
	g := startGatewayTo(t, fmt.Sprintf("smtp://127.0.0.1:%d", back), port, "--xforward-from", "127.0.0.1")

	if code := sendWithSwaks(t, front, messageFile(t, plainMessage, "behind")); code != "250" {
		t.Errorf("reply %s, want 250", code)
	}
	m.AwaitDelivered("Subject: behind")
	g.proxy.WaitOutput("forwarded=127.0.0.2") // whom Postfix speaks for
	if code := sendWithSwaks(t, front, messageFile(t, gtubeMessage, "spam")); code != "554" {
		t.Errorf("reply %s to GTUBE, want 554", code)
	}
	if n := len(m.Delivered()); n != 1 {
		t.Errorf("%d messages delivered, want 1", n)
	}
}
