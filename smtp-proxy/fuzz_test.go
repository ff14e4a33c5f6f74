package main

import (
	"io"
	"net"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// FuzzClient has a client say anything, in two pieces: the proxy must end the session, every message that it acknowledged
// must be at the next hop and no other, and that server must not see anything that the letter of the protocol does
// not allow: INV-01, INV-03, INV-04.
func FuzzClient(f *testing.F) {
	const hello, envelope = "EHLO a\r\n", "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
	for _, text := range []string{
		hello + envelope + "DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
		hello + envelope + "DATA\r\n\n.\nMAIL FROM:<x@y>\r\n.\r\n",
		hello + envelope + "BDAT 5\r\nA: b\rBDAT 3 LAST\r\n\n.\nNOOP\r\n",
		hello + envelope + "BDAT 99999999999999999999 LAST\r\n",
		hello + "MAIL FROM:<\"a b\"@c> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+3Db SMTPUTF8\r\nRCPT TO:<@a:b@c> NOTIFY=NEVER ORCPT=rfc822;x\r\nRSET\r\n",
		hello + "AUTH PLAIN\r\n*\r\nAUTH LOGIN =\r\nAAAA\r\nSTARTTLS\r\nVRFY x\r\n",
		"HELO a\r\nXCLIENT ADDR=192.0.2.7 NAME=a+0D+0A\r\nXCLIENT ADDR=192.0.2.7 LOGIN=x\r\n" + hello + envelope + "DATA\r\n.\r\n",
		"PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01",
	} {
		f.Add([]byte(text), uint16(len(text)/2))
	}
	b := testenv.StartBackend(f)
	b.Extend("PIPELINING", "SIZE 100000", "8BITMIME", "SMTPUTF8", "DSN", "AUTH PLAIN LOGIN", "CHUNKING", "XCLIENT ADDR NAME LOGIN")
	p := startProxy(f, behind(b), "--auth-requires-tls=no", "--xclient-from=127.0.0.0/8", "--address-check=off", "--max-errors=1000", "--max-junk=1000",
		"--max-sessions-per-address=0")
	f.Fuzz(func(t *testing.T, said []byte, cut uint16) {
		b.Forget()
		p.log.Reset()
		nc := testenv.Dial(t, "tcp", p.addr)
		replies := make(chan string, 1)
		go func() {
			all, err := io.ReadAll(nc)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the session does not end")
			}
			replies <- string(all)
		}()
		n := min(int(cut), len(said))
		for _, piece := range [][]byte{said[:n], said[n:]} {
			if _, err := nc.Write(piece); err != nil {
				break // it has had enough
			}
		}
		_ = nc.(*net.TCPConn).CloseWrite()
		text := testenv.Receive(t, "the end of the session", replies)
		acknowledged, arrived := strings.Count(text, "\r\n250 2.0.0 Ok: queued as "), len(b.Messages())
		// What was reset on its way to the client is not in the text.
		if arrived < acknowledged || arrived > acknowledged && strings.HasSuffix(text, "\r\n") && strings.Contains(text, "\r\n221 ") {
			t.Errorf("%d messages were acknowledged, %d arrived; replies %q", acknowledged, arrived, text)
		}
		if breaches := b.Breaches(); len(breaches) > 0 {
			b.Forgive()
			t.Errorf("the next hop saw %q", breaches)
		}
	})
}

func FuzzXClient(f *testing.F) {
	f.Add("ADDR=192.0.2.1 PORT=25 NAME=a.example HELO=b LOGIN=c PROTO=ESMTP")
	f.Add("ADDR=IPV6:2001:db8::1 NAME=[UNAVAILABLE]")
	f.Add("NAME=a+0D+0A")
	f.Fuzz(func(t *testing.T, arg string) {
		var x xclient
		if x.parse(arg) != nil {
			return
		}
		if strings.ContainsAny(x.name+x.login, "\r\n\x00") || x.addr.Is4In6() || x.addr.Zone() != "" {
			t.Errorf("%q gives %+v", arg, x)
		}
	})
}
