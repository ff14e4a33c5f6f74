package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// sendTo sends a message to example.net and gives the name the server took it under.
func sendTo(t *testing.T, c *Conn, content string) string {
	t.Helper()
	code, id := send(t, c, "ann@example.org", "bob@example.net", content)
	if code != 250 || id == "" {
		t.Fatalf("code %d, queue id %q", code, id)
	}
	return id
}

// Messages arrive at Postfix as they were sent, one by one, on one connection.
func TestPostfix(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "", "")
	set := newSet(t, Config{URLs: []string{"smtp://" + m.Address()}, Helo: "proxy.example.net"})
	caps, err := set.Capabilities(t.Context())
	if err != nil || !caps.Pipelining || !caps.HasSize || !caps.EightBitMIME || !caps.DSN || !caps.SMTPUTF8 || caps.StartTLS {
		t.Errorf("capabilities %+v, %v", caps, err)
	}
	odd := "Subject: odd\r\n\r\n.\r\n..\r\n.a\r\n..b\r\n\r\n" + strings.Repeat("long ", 150) + "\r\n.\r\n.\r\nMAIL FROM:<evil@example.org>\r\nlast odd"
	contents := []string{odd, "Subject: large\r\n\r\n" + strings.Repeat("a line of a large message\r\n", 20000) + "last large"}
	for _, content := range contents {
		c := get(t, set, Client{})
		sendTo(t, c, content)
		c.Release()
	}
	for _, content := range contents {
		words := strings.Fields(content)
		got := m.AwaitDelivered("last " + words[len(words)-1])
		_, body, _ := strings.Cut(got, "\n\n")
		_, want, _ := strings.Cut(strings.ReplaceAll(content, "\r\n", "\n"), "\n\n")
		if strings.TrimRight(body, "\n") != want {
			t.Errorf("body arrived as %.200q..., want %.200q...", body, want)
		}
		if !strings.Contains(got, "from proxy.example.net") {
			t.Errorf("header:\n%.1000s", got)
		}
	}
	if s := set.Stats()[0]; s.Dialed != 1 || s.Reused != 2 || len(m.Delivered()) != len(contents) {
		t.Errorf("%+v, %d messages", s, len(m.Delivered()))
	}
	// Refusals are passed on as they are, and do not harm the connection.
	c := get(t, set, Client{})
	c.Command("MAIL FROM:<ann@example.org> SIZE=99999999999")
	r, err := c.Reply(testenv.Patience)
	if err != nil || r.Code != 552 || r.Enhanced != "5.3.4" {
		t.Errorf("got %v, %v", r, err)
	}
	say(t, c, []string{"RSET", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@.bad>"}, 250, 250, 501)
	c.Release()
	if s := set.Stats()[0]; s.Dialed != 1 || s.Idle != 1 {
		t.Errorf("%+v", s)
	}
}

// INV-03 at a real server: none of the smuggling sequences makes two messages of one.
func TestPostfixSmuggling(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "smtpd_forbid_bare_newline = no", "")
	set := newSet(t, Config{URLs: []string{"smtp://" + m.Address()}})
	ends := []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\n", "\n.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n",
		"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\n\n.\n\n", "\r\n.\n\r\n", "\r\n..\r\n", "\r\n.\r\n"}
	for i, end := range ends {
		c := get(t, set, Client{})
		sendTo(t, c, fmt.Sprintf("Subject: %d\r\n\r\nfirst%sMAIL FROM:<evil@x.test>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: b\r\n\r\nforged\r\nlast %d;", i, end, i))
		c.Release()
	}
	for i := range ends {
		if got := m.AwaitDelivered(fmt.Sprintf("last %d;", i)); !strings.Contains(got, "\nfirst") {
			t.Errorf("message %d was cut: %q", i, got)
		}
	}
	if n := len(m.Delivered()); n != len(ends) || set.Stats()[0].Dialed != 1 {
		t.Errorf("%d messages of %d; %+v", n, len(ends), set.Stats())
	}
}

// writePEM writes a certificate and its key into one file.
func writePEM(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})...)
	path := filepath.Join(testenv.ShortDir(t), "server.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPostfixTLS(t *testing.T) {
	t.Parallel()
	ca := testenv.NewAuthority(t)
	file := writePEM(t, ca.Issue("127.0.0.1", time.Hour))
	tlsPort := testenv.FreePort(t)
	m := testenv.StartPostfix(t, "smtpd_tls_security_level = encrypt\nsmtpd_tls_chain_files = "+file+"\nsmtpd_tls_received_header = yes",
		fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\ntlsmgr unix - - n 1000? 1 tlsmgr", tlsPort))
	for i, url := range []string{"smtp://" + m.Address(), fmt.Sprintf("smtps://127.0.0.1:%d", tlsPort)} {
		set := newSet(t, Config{URLs: []string{url}, TLS: TLSVerify, TLSConfig: &tls.Config{RootCAs: ca.Pool}})
		for j := range 2 {
			c := get(t, set, Client{})
			mark := fmt.Sprintf("mark %d %d;", i, j)
			sendTo(t, c, "Subject: x\r\n\r\n"+mark)
			c.Release()
			if got := m.AwaitDelivered(mark); !strings.Contains(got, "TLSv1.3") {
				t.Errorf("header:\n%s", got)
			}
		}
		if s := set.Stats()[0]; s.Dialed != 1 {
			t.Errorf("%s: %+v", url, s)
		}
		clear := newSet(t, Config{URLs: []string{url}, TLS: TLSVerify})
		if r, err := getError(t, clear, Client{}); r.Enhanced != "4.7.5" {
			t.Errorf("unknown authority: %v, %v", r, err)
		}
	}
}

// Postfix believes XCLIENT, but takes it once: clients get connections of their own.
func TestPostfixXClient(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "inet_protocols = ipv4\nsmtpd_authorized_xclient_hosts = 127.0.0.1\nsmtpd_relay_restrictions = permit_auth_destination, reject", "")
	set := newSet(t, Config{URLs: []string{"smtp://" + m.Address()}, ClientIP: ClientIPXClient})
	if _, err := set.Capabilities(t.Context()); err != nil {
		t.Fatal(err)
	}
	unnamed := Client{Addr: netip.MustParseAddrPort("192.0.2.9:99"), Helo: "odd+name=x", Proto: "SMTP"}
	long := aClient
	long.Addr = netip.MustParseAddrPort("192.0.2.8:5")
	long.Name, long.Helo, long.Login = strings.Repeat("n.", 120)+"test", strings.Repeat("h", 240), strings.Repeat("l", 240)
	for i, test := range []struct {
		client Client
		want   string
	}{
		{aClient, "from helo.a.test (mx.a.test [192.0.2.7])"},
		{unnamed, "from odd+name=x (unknown [192.0.2.9])"},
		{aClient, "from helo.a.test (mx.a.test [192.0.2.7])"},
		{long, "[192.0.2.8]"},
	} {
		c := get(t, set, test.client)
		mark := fmt.Sprintf("mark %d;", i)
		sendTo(t, c, "Subject: x\r\n\r\n"+mark)
		c.Release()
		if got := m.AwaitDelivered(mark); !strings.Contains(strings.Join(strings.Fields(got), " "), test.want) {
			t.Errorf("want %s in header:\n%s", test.want, got)
		}
	}
	// The first one took over the connection on which the capabilities were asked for.
	if s := set.Stats()[0]; s.Dialed != 3 || s.Reused != 2 {
		t.Errorf("%+v", s)
	}
	// A client that Postfix does not take, such as one with an IPv6 address here, keeps nobody else out.
	v6 := Client{Addr: netip.MustParseAddrPort("[2001:db8::7]:99")}
	for range 5 {
		if r, err := getError(t, set, v6); r.Code != 421 {
			t.Errorf("got %v, %v", r, err)
		}
	}
	get(t, set, aClient).Release()
}

func TestPostfixProxyProtocol(t *testing.T) {
	t.Parallel()
	port := testenv.FreePort(t)
	m := testenv.StartPostfix(t, "smtpd_relay_restrictions = permit_auth_destination, reject",
		fmt.Sprintf("127.0.0.1:%d inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy", port))
	for _, mode := range []ClientIP{ClientIPProxy1, ClientIPProxy2} {
		set := newSet(t, Config{URLs: []string{fmt.Sprintf("smtp://127.0.0.1:%d", port)}, ClientIP: mode})
		if _, err := set.Capabilities(t.Context()); err != nil {
			t.Errorf("in our own name: %v", err)
		}
		other := Client{Addr: netip.MustParseAddrPort("192.0.2.8:99")}
		for i, client := range []Client{aClient, other} {
			c := get(t, set, client)
			mark := fmt.Sprintf("mark %s %d;", mode, i)
			sendTo(t, c, "Subject: x\r\n\r\n"+mark)
			c.Release()
			if got := m.AwaitDelivered(mark); !strings.Contains(got, client.Addr.Addr().String()+"]") {
				t.Errorf("header:\n%s", got)
			}
		}
	}
}

// Postfix closes idle connections; that costs no message.
func TestPostfixIdle(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "smtpd_timeout = 3s", "") // longer than the machine pauses within a dialog
	set := newSet(t, Config{URLs: []string{"smtp://" + m.Address()}})
	c := get(t, set, Client{})
	sendTo(t, c, "Subject: x\r\n\r\nfirst;")
	c.Release()
	testenv.Eventually(t, "Postfix hangs up", func() bool { return c.stream.quiet() != nil })
	c = get(t, set, Client{})
	sendTo(t, c, "Subject: x\r\n\r\nsecond;")
	c.Release()
	m.AwaitDelivered("first;")
	m.AwaitDelivered("second;")
	if s := set.Stats()[0]; s.Dialed != 2 {
		t.Errorf("%+v", s)
	}
}

// sendmail -bs of Postfix, as a program.
func TestPostfixSendmail(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "", "")
	testenv.Need(t, "sendmail -bs as server", "sendmail")
	sendmail := testenv.Path(t, "sendmail -bs as server", "sendmail")
	set := newSet(t, Config{URLs: []string{"exec:" + sendmail + " -C " + filepath.Join(m.Dir, "etc") + " -bs"}})
	for i := range 2 {
		c := get(t, set, Client{})
		mark := fmt.Sprintf("mark %d;", i)
		sendTo(t, c, "Subject: x\r\n\r\n.dot\r\n"+mark)
		c.Release()
		if got := m.AwaitDelivered(mark); !strings.Contains(got, "\n.dot\n") {
			t.Errorf("arrived:\n%s", got)
		}
	}
	if s := set.Stats()[0]; s.Dialed != 1 || s.Reused != 1 {
		t.Errorf("%+v", s)
	}
}
