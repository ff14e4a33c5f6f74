package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// The tests of this file are the cases about commands and replies.

// transactions counts the commands of transactions that a server has seen.
func transactions(b *testenv.Backend) (n int) {
	for _, c := range b.Commands() {
		switch verb, _, _ := strings.Cut(c, " "); verb {
		case "MAIL", "RCPT", "DATA", ".":
			n++
		}
	}
	return n
}

func TestCMD_01_LineFeedAloneEndsNoCommandInRejectMode(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	for mode, want := range map[string]string{"reject": "500 5.5.2", "normalize": "250"} {
		p := startProxy(t, behind(b), "--bare-newline", mode)
		c := dial(t, p.addr)
		c.expect("220")
		c.send("EHLO a\n")
		c.expect(want)
		if mode == "reject" {
			c.expectEnd()
		}
	}
}

func TestCMD_02_BareCRDoesNotSeparateCommands(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.send("NOOP\rMAIL FROM:<a@b.example>\r\n")
	c.expect("500")
	c.cmd("RCPT TO:<a@b.example>", "503")
	if n := transactions(b); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

func TestCMD_03_ControlBytesInCommands(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	for _, line := range []string{"MAIL FROM:<a@b.example>\x00", "EHLO a\x00b", "MAIL FROM:<a\x00@b.example>", "NOOP \x01", "MAIL FROM:<a@b.example>\x7f"} {
		c.cmd(line, "501")
	}
	c.cmd("RCPT TO:<a@b.example>", "503")
	if n := transactions(b); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

func TestCMD_04_LengthOfCommandLines(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	for _, tt := range []struct {
		verb string
		size int // of the line, with CR LF
		want string
	}{
		{"NOOP ", 512, "250"}, {"NOOP ", 513, "500 5.5.2"}, {"NOOP ", 2048, "500 5.5.2"}, {"NOOP ", 12288, "500 5.5.2"}, {"NOOP ", 12289, "500 5.5.2"},
		{"AUTH PLAIN ", 12288, "538"}, {"AUTH PLAIN ", 12289, "500 5.5.2"}, {"NOOP ", 60000, "500 5.5.2"}, {"NOOP ", 1 << 20, "421"},
	} {
		c := greeted(t, p.addr)
		go io.WriteString(c, tt.verb+strings.Repeat("x", tt.size-len(tt.verb)-2)+"\r\n")
		c.expect(tt.want)
		if tt.want != "421" {
			c.cmd("NOOP", "250 2.0.0 Ok") // one reply, and in step
		}
	}
}

func TestCMD_05_EndlessCommandLine(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	const limit = time.Second
	p := startProxy(t, behind(b), "--command-timeout", limit.String())
	began := time.Now()
	c := dial(t, p.addr)
	c.expect("220")
	var stop atomic.Bool
	testenv.Go(t, "a byte now and then", func() error {
		for !stop.Load() {
			if _, err := io.WriteString(c, "x"); err != nil {
				return nil
			}
			testenv.Pause(50 * time.Millisecond)
		}
		return nil
	})
	defer stop.Store(true)
	c.expect("421 4.4.2 proxy.example ")
	if took := time.Since(began); took < limit {
		t.Errorf("ended after %v, want %v", took, limit)
	}
}

func TestCMD_06_PipelinedTransactionWithContent(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nNOOP\r\nRCPT TO:<e@f.example>\r\nDATA\r\n")
	for _, want := range []string{"250 2.1.0", "250", "250 2.0.0 Ok", "250", "354"} {
		c.expect(want)
	}
	c.send(smallMessage + "QUIT\r\n")
	c.expect("250 2.0.0 Ok: queued")
	c.expect("221")
	c.expectEnd()
}

func TestCMD_07_ContentBeforeThe354(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.send("DATA\r\nSubject: x\r\n")
	c.expect("554 5.5.0")
	c.expectEnd()
	c = greeted(t, p.addr)
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n")
	for _, want := range []string{"250", "250", "554 5.5.0"} {
		c.expect(want)
	}
	c.expectEnd()
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestCMD_08_CommandsBeforeTheGreeting(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--greeting-delay=1h")
	c := dial(t, p.addr)
	c.send("EHLO a\r\n")
	c.expect("554 5.5.0")
	c.expectEnd()
	p = startProxy(t, behind(b), "--greeting-delay=20ms")
	dial(t, p.addr).expect("220")
}

// TestCMD_09_PipeliningThatWasNotOffered: a client that was greeted with HELO was offered no pipelining; its commands
// are carried out in order all the same.
func TestCMD_09_PipeliningThatWasNotOffered(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("SIZE 1000000") // nor does the next hop offer it
	p := startProxy(t, behind(b))
	c := dial(t, p.addr)
	c.expect("220")
	c.cmd("HELO a", "250")
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "250", "354"} {
		c.expect(want)
	}
	c.send(smallMessage)
	c.expect("250")
	if got := b.Messages(); len(got) != 1 || len(got[0].To) != 2 || !strings.Contains(got[0].Data, "with SMTP id") {
		t.Errorf("got %+v", got)
	}
}

func TestCMD_10_CommandsOutOfOrder(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := dial(t, p.addr)
	c.expect("220")
	c.cmd("MAIL FROM:<a@b.example>", "503")
	c.cmd("EHLO a", "250")
	c.cmd("RCPT TO:<a@b.example>", "503")
	c.cmd("DATA", "503")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("DATA", "554")
	c.cmd("MAIL FROM:<c@d.example>", "503")
	if n := transactions(b); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

// TestCMD_11_NothingIsOpenAfterARefusal by the server, the worker, or for the size.
func TestCMD_11_NothingIsOpenAfterARefusal(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"upstream", "worker", "size", "upstream MAIL", "upstream DATA"} {
		t.Run(by, func(t *testing.T) {
			b := testenv.StartBackend(t)
			args := []string{behind(b)}
			switch by {
			case "upstream":
				b.Answer(func(a testenv.Asked) string { return onVerb(a, ".", "554 5.7.1 No") })
			case "upstream MAIL":
				b.Answer(func(a testenv.Asked) string { return onVerb(a, "MAIL", "553 5.1.8 No") })
			case "upstream DATA":
				b.Answer(func(a testenv.Asked) string { return onVerb(a, "DATA", "554 5.7.1 No") })
			case "worker":
				m := startMultiplexor(t, scanWith(t, "B554 5.7.1 No\nF\n"))
				args = append(args, m.args()...)
			case "size":
				args = append(args, "--max-message-size=10")
			}
			p := startProxy(t, args...)
			c := greeted(t, p.addr)
			c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
			switch by {
			case "upstream MAIL":
				for _, want := range []string{"553", "553", "554"} {
					c.expect(want)
				}
			case "upstream DATA":
				for _, want := range []string{"250", "250", "554"} {
					c.expect(want)
				}
			default:
				for _, want := range []string{"250", "250", "354"} {
					c.expect(want)
				}
				c.send(smallMessage)
				c.expect("55")
			}
			c.cmd("RCPT TO:<c@d.example>", "503")
			c.cmd("DATA", "503")
			if n := len(b.Messages()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func onVerb(a testenv.Asked, verb, answer string) string {
	if a.Verb == verb {
		return answer
	}
	return ""
}

func onLine(a testenv.Asked, begin, answer string) string {
	if strings.HasPrefix(a.Line, begin) {
		return answer
	}
	return ""
}

func TestCMD_12_AcceptedByTheFilterForOneMessageOnly(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	pass := scanWith(t, "F\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "senderok" && strings.HasPrefix(words[1], "<free@") {
			return "ok 2 ok 250 2.1.0 0\n"
		}
		return pass(words)
	})
	p := startProxy(t, m.args(behind(b))...)
	c := greeted(t, p.addr)
	for _, from := range []string{"free", "checked"} {
		c.cmd("MAIL FROM:<"+from+"@b.example>", "250")
		c.cmd("RCPT TO:<c@d.example>", "250")
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	asked := strings.Join(m.requests(), "\n")
	if strings.Count(asked, "\nscan ") != 1 || strings.Count(asked, "\nrecipok ") != 1 || strings.Count(asked, "\nsenderok ") != 2 {
		t.Errorf("asked\n%s", asked)
	}
}

func TestCMD_13_DataWithoutValidRecipients(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		switch a.Verb {
		case "RCPT":
			return "550 5.1.1 No"
		case "DATA":
			return "354 Go ahead" // RFC 2920, 3.1 allows this
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "550", "554 5.5.1 No valid recipients"} {
		c.expect(want)
	}
	c.cmd("NOOP", "250")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestCMD_14_WhatEndsATransaction(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--xclient-from=127.0.0.0/8")
	for _, tt := range []struct{ line, want, after string }{
		{"RSET", "250", "503"}, {"EHLO again", "250", "503"}, {"HELO again", "250", "503"}, {"STARTTLS", "502", "250"}, {"XCLIENT ADDR=192.0.2.1", "503", "250"},
	} {
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd(tt.line, tt.want)
		c.cmd("RCPT TO:<x@y.example>", tt.after)
		c.cmd("QUIT", "221")
		c.expectEnd()
	}
	// The next hop has none either: each session's MAIL was taken (a second one within a
	// transaction would be a breach).
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestCMD_15_ChunkThatWasNotOffered(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := dial(t, p.addr)
	c.expect("220")
	c.cmd("HELO a", "250") // so CHUNKING was not offered
	c.send("BDAT 100 LAST\r\nMAIL FROM:<evil@x.test>\r\n" + strings.Repeat("x", 75))
	c.expect("503")
	c.expectEnd()
	if n := transactions(b); n != 0 {
		t.Errorf("the next hop saw %q", b.Commands())
	}
}

func TestCMD_16_ChunkSizesAndBoundaries(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	for _, bad := range []string{"BDAT -1", "BDAT 99999999999999999999", "BDAT", "BDAT x", "BDAT 1 FIRST", "BDAT +1 LAST", "BDAT 0x10"} {
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd(bad, "501")
		c.expectEnd()
	}
	c := greeted(t, p.addr)
	c.envelope()
	c.send("BDAT 14\r\nSubject: x\r\n\r\nBDAT 6\r\n.line\rBDAT 1\r\n\nBDAT 0 LAST\r\n")
	for _, want := range []string{"250", "250", "250", "250 2.0.0 Ok: queued"} {
		c.expect(want)
	}
	if text := body(t, b.Messages()[0]); text != "Subject: x\r\n\r\n.line\r\n" {
		t.Errorf("arrived as %q", text)
	}
	c = greeted(t, p.addr)
	c.envelope()
	c.send("BDAT 14\r\nSubject: x\r\n\r\nBDAT 10\r\n.\r\ntext\r\n.BDAT 4\r\n\r\nX.BDAT 2 LAST\r\n\r\n")
	for _, want := range []string{"250 2.0.0 14 octets", "250 2.0.0 10 octets", "250 2.0.0 4 octets", "250 2.0.0 Ok: queued"} {
		c.expect(want)
	}
	got := b.Messages()
	if text := body(t, got[len(got)-1]); text != "Subject: x\r\n\r\n.\r\ntext\r\n.\r\nX.\r\n" {
		t.Errorf("arrived as %q", text)
	}
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<c@d.example>", "250")
	c.send("BDAT 3\r\na\rb")
	c.expect("550 5.5.2")
	c.expectEnd()
}

func TestCMD_16_ChunksOfOneByte(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	chunks := testenv.Load(20000, 100000)
	go func() {
		c.Write([]byte("BDAT 14\r\nSubject: x\r\n\r\n" + strings.Repeat("BDAT 1\r\n.", chunks) + "BDAT 0 LAST\r\n"))
	}()
	for range chunks + 1 {
		c.expect("250 2.0.0 1")
	}
	c.expect("250 2.0.0 Ok: queued")
	if got := body(t, b.Messages()[0]); got != "Subject: x\r\n\r\n"+strings.Repeat(".", chunks)+"\r\n" {
		t.Errorf("arrived as %d bytes", len(got))
	}
}

// TestCMD_16_ChunksDoNotOutlastTheMessageTimeout: chunks too small to be waited for do not keep a message open for
// ever.
func TestCMD_16_ChunksDoNotOutlastTheMessageTimeout(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--message-timeout=1s")
	c := greeted(t, p.addr)
	c.envelope()
	for {
		c.send("BDAT 1\r\na")
		r, err := smtp.ReadReply(c.r)
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Code == 421:
			c.expectEnd()
			return
		case r.Code != 250:
			t.Fatalf("reply %q, want 250 and at last 421", r)
		}
	}
}

func TestCMD_16_NothingIsOpenAfterAFailedChunk(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-message-size=100")
	c := greeted(t, p.addr)
	c.envelope()
	c.send("BDAT 200\r\n" + strings.Repeat("a", 200) + "BDAT 3 LAST\r\nabc")
	c.expect("552")
	c.expect("503")
	c.cmd("DATA", "503")
	c.cmd("RCPT TO:<a@b.example>", "503")
	c.envelope()
	c.send("BDAT 1\r\na")
	c.expect("250")
	c.cmd("RCPT TO:<a@b.example>", "503")
	c.cmd("DATA", "503")
	c.cmd("RSET", "250")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestCMD_17_SizesOutOfRange(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-message-size=1000", "--max-errors=100")
	c := greeted(t, p.addr)
	for value, want := range map[string]string{
		"99999999999999999999": "552", "9999999999999999999": "552", "1001": "552", "-1": "501", "0x10": "501", "": "501", strings.Repeat("9", 100): "501",
	} {
		c.cmd("MAIL FROM:<a@b.example> SIZE="+value, want)
	}
	c.cmd("MAIL FROM:<a@b.example> SIZE=1000", "250")
}

func TestCMD_18_EncodedControlBytesInParameters(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "DSN", "AUTH PLAIN")
	p := startProxy(t, behind(b), "--auth-requires-tls=no")
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example> RET=HDRS ENVID=a+0D+0ARCPT+20TO:<x@y>", "501")
	c.cmd("MAIL FROM:<a@b.example> AUTH=<>+0A", "501")
	c.cmd("MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314", "250")
	c.cmd("RCPT TO:<c@d.example> ORCPT=rfc822;a+0D+0A", "501")
	c.cmd("RCPT TO:<c@d.example> ORCPT=rfc822;a+2Bb@c NOTIFY=SUCCESS,DELAY", "250")
	if got := strings.Join(b.Commands(), "\n"); !strings.Contains(got, "MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ314\nRCPT TO:<c@d.example> ORCPT=rfc822;a+2Bb@c NOTIFY=SUCCESS,DELAY") {
		t.Errorf("the next hop saw\n%s", got)
	}
}

func TestCMD_19_ParametersTheServerDoesNotKnow(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING")
	p := startProxy(t, behind(b), "--max-errors=100")
	c := greeted(t, p.addr)
	for _, param := range []string{"XFOO=1", "BODY=8BITMIME", "RET=FULL", "ENVID=x", "SMTPUTF8", "AUTH=bob", "MT-PRIORITY=3", "HOLDFOR=100", "BY=1;R"} {
		c.cmd("MAIL FROM:<a@b.example> "+param, "555")
	}
	c.cmd("MAIL FROM:<a@b.example> SIZE=10 AUTH=<>", "250") // says nothing
	for _, param := range []string{"NOTIFY=NEVER", "ORCPT=rfc822;a@b", "X=1", "SIZE=3"} {
		c.cmd("RCPT TO:<c@d.example> "+param, "555")
	}
	c.cmd("RCPT TO:<c@d.example>", "250")
	if got := strings.Join(b.Commands(), "\n"); !strings.Contains(got, "MAIL FROM:<a@b.example>\nRCPT TO:<c@d.example>") {
		t.Errorf("the next hop saw\n%s", got)
	}
}

func TestCMD_20_UTF8WithoutAServerForIt(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "8BITMIME")
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example> SMTPUTF8", "555")
	c.cmd("MAIL FROM:<gr\xc3\xbcn@b.example>", "553")
	c.cmd("VRFY gr\xc3\xbcn", "252")
	c.cmd("DATA", "503")
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<gr\xc3\xbcn@b.example>", "553")
	c.cmd("DATA", "554")
	b2 := testenv.StartBackend(t)
	p = startProxy(t, behind(b2))
	c = greeted(t, p.addr)
	c.cmd("MAIL FROM:<gr\xc3\xbcn@b.example> SMTPUTF8", "250")
	c.cmd("RCPT TO:<bl\xc3\xa4u@b.example>", "250")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if got := b2.Messages(); len(got) != 1 || got[0].From != "<gr\xc3\xbcn@b.example> SMTPUTF8" || !strings.Contains(got[0].Data, "with UTF8SMTP id") {
		t.Errorf("got %+v", got)
	}
}

func TestCMD_21_OddAddresses(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	for mode, wants := range map[string][]string{
		//            route  quoted % ! two@ <> none open long
		"strict": {"501", "250", "501", "501", "501", "501", "501", "501", "501"},
		"rfc":    {"501", "250", "250", "250", "501", "501", "501", "501", "501"},
		"off":    {"250", "250", "250", "250", "501", "501", "250", "501", "501"},
	} {
		p := startProxy(t, behind(b), "--address-check", mode, "--max-errors=100")
		c := greeted(t, p.addr)
		c.cmd("MAIL FROM:<a@b.example>", "250")
		for i, rcpt := range []string{"<@a,@b:c@d>", `<"a b"@c>`, "<a%b@c>", "<a!b@c>", "<a@b@c>", "<>", "a@b.example", "<a@b", "<" + strings.Repeat("l", 900) + "@b>"} {
			t.Logf("%s %.30s", mode, rcpt)
			c.cmd("RCPT TO:"+rcpt, wants[i])
		}
	}
	for _, line := range b.Commands() {
		if strings.Contains(line, "@a,@b") || strings.Contains(line, "a@b@c") {
			t.Errorf("forwarded %q", line)
		}
	}
}

func TestCMD_22_OtherProtocols(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" // no line, and none to come
	for _, line := range []string{"GET / HTTP/1.1\r\n", "POST /mail HTTP/1.1\r\n", "CONNECT host:25 HTTP/1.1\r\n", "\x80\x00\r\n", "{\"json\": 1}\r\n", hello} {
		c := greeted(t, p.addr)
		c.send(line)
		c.expect("554 5.5.1")
		c.expectEnd()
	}
	nc := testenv.Dial(t, "tcp", p.addr)
	if err := tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("TLS on a plain port")
	}
}

func TestCMD_23_LimitsOfASession(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-junk=100", "--max-recipients=20", "--max-transactions=50")
	c := greeted(t, p.addr)
	for range 9 {
		c.cmd("XYZZY", "500")
	}
	c.cmd("XYZZY", "500")
	c.expect("421 4.7.0 proxy.example ")
	c.expectEnd()
	c = greeted(t, p.addr)
	for range 100 {
		c.cmd("NOOP", "250")
	}
	c.expect("421 4.7.0 proxy.example ")
	c.expectEnd()
	c = greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example>", "250")
	for range 20 {
		c.cmd("RCPT TO:<c@d.example>", "250")
	}
	c.cmd("RCPT TO:<c@d.example>", "452 4.5.3")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if n := len(b.Messages()[0].To); n != 20 {
		t.Errorf("%d recipients arrived, want 20", n)
	}
	for range 49 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	c.cmd("MAIL FROM:<a@b.example>", "421 4.7.0 proxy.example ")
	c.expectEnd()
}

func TestCMD_24_VerbsThatAreNeverRelayed(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-errors=100")
	c := greeted(t, p.addr)
	c.cmd("XCLIENT ADDR=192.0.2.1", "550 5.7.0")
	for _, line := range []string{"XFORWARD ADDR=192.0.2.1", "ETRN x", "EXPN x", "BURL x", "TURN", "X-ADAT", "XEXCH50 1 2", "SEND FROM:<a@b>", "SOML FROM:<a@b>", "SAML FROM:<a@b>"} {
		c.cmd(line, "50")
	}
	c.cmd("VRFY x", "252")
	c.cmd("HELP", "214")
	c.envelope()
	for _, line := range b.Commands() {
		switch verb, _, _ := strings.Cut(line, " "); verb {
		case "EHLO", "MAIL", "RCPT", "RSET", "QUIT":
		default:
			t.Errorf("relayed %q", line)
		}
	}
}

func TestCMD_25_OnlyKnownKeywordsAreOffered(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("XCLIENT NAME ADDR", "XFORWARD NAME", "STARTTLS", "AUTH PLAIN LOGIN bad\"mech", "CHUNKING", "BURL imap", "ETRN", "X-FOO", "SIZE x", "250-CRLF tricks", "8BITMIME")
	p := startProxy(t, behind(b), "--auth-requires-tls=no", "--upstream-tls=none", "--max-message-size=1234", "--max-transactions=7")
	c := dial(t, p.addr)
	c.expect("220")
	r := c.cmd("EHLO a", "250")
	want := "proxy.example|PIPELINING|SIZE 1234|8BITMIME|ENHANCEDSTATUSCODES|CHUNKING|AUTH PLAIN LOGIN|LIMITS RCPTMAX=1000 MAILMAX=7"
	if got := strings.Join(r.Lines, "|"); got != want {
		t.Errorf("offered\n%s, want\n%s", got, want)
	}
}

func TestCMD_26_RepliesAsTheClientSeesThem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, answer, want string }{
		{"several lines", "250-a\r\n250-b\r\n250 c", "250-a"},
		{"mixed codes", "250-a\r\n550 b", "451 4.3.0"},
		{"no code", "hello", "451 4.3.0"},
		{"code 999", "999 a", "451 4.3.0"},
		{"10000 lines", strings.Repeat("250-a\r\n", 10000) + "250 b", "451 4.3.0"},
		{"long line", "250 " + strings.Repeat("a", 1<<20), "451 4.3.0"},
		{"control bytes", "250 a\x00b\x1b[2Jc\rd", "250 a?b?[2Jc?d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string { return onVerb(a, "RCPT", tt.answer) })
			p := startProxy(t, behind(b))
			c := greeted(t, p.addr)
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.send("RCPT TO:<c@d.example>\r\n")
			line, err := c.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, tt.want) {
				t.Errorf("client saw %q, %v; want %q", line, err, tt.want)
			}
			b.Forgive()
		})
	}
}

func TestCMD_27_ReplyNobodyAskedFor(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"MAIL", "RCPT", "EHLO"} {
		t.Run(verb, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string {
				if a.Verb == verb && a.Conn <= 2 {
					return "250 2.0.0 Ok\r\n250 2.0.0 Once more"
				}
				return ""
			})
			p := startProxy(t, behind(b))
			c := dial(t, p.addr)
			c.expect("220")
			c.send("EHLO a\r\n")
			c.expect("250")
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.send("RCPT TO:<c@d.example>\r\n")
			first, err := smtp.ReadReply(c.r)
			if err != nil {
				t.Fatal(err)
			}
			c.send("DATA\r\n")
			if r, err := smtp.ReadReply(c.r); err != nil || r.Code == 354 && first.Code != 250 {
				t.Errorf("RCPT %q, DATA %q, %v", first, r, err)
			} else if r.Code == 354 {
				// The reply nobody asked for was seen before DATA went out, and another connection
				// was taken.
				c.send(smallMessage)
				c.expect("250")
			}
			for _, m := range b.Messages() {
				if m.Conn <= 2 && verb != "EHLO" {
					t.Errorf("connection %d was used although it was out of step", m.Conn)
				}
			}
		})
	}
}

func TestCMD_28_TroubleBehindIsTemporary(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, verb, answer string }{
		{"greeting 554", "", "554 No"}, {"greeting 421", "", "421 Busy"}, {"greeting silent", "", "hang"},
		{"EHLO refused", "EHLO", "close"}, {"dies after 354", ".", "close"}, {"dies at DATA", "DATA", "close"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			b.Answer(func(a testenv.Asked) string { return onVerb(a, tt.verb, tt.answer) })
			limit := "1m"
			if tt.answer == "hang" {
				limit = "1s"
			}
			p := startProxy(t, behind(b), "--connect-timeout", limit, "--upstream-timeout", limit)
			c := greeted(t, p.addr)
			c.cmd("MAIL FROM:<a@b.example>", "250")
			c.send("RCPT TO:<c@d.example>\r\n")
			r, err := smtp.ReadReply(c.r)
			if err != nil {
				t.Fatal(err)
			}
			if r.Positive() {
				c.send("DATA\r\n")
				if r, err = smtp.ReadReply(c.r); err == nil && r.Code == 354 {
					c.send(smallMessage)
					r, err = smtp.ReadReply(c.r)
				}
			}
			if err != nil || !r.Temporary() {
				t.Errorf("last reply %q, %v; want 4xx", r, err)
			}
		})
	}
}

func TestCMD_29_ClientGoneBeforeTheReply(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	gone := make(chan struct{})
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "." {
			testenv.Receive(t, "the end of the client", gone)
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.Close()
	close(gone)
	testenv.Eventually(t, "the server's decision is in the log", func() bool {
		return strings.Contains(p.log.String(), "outcome=accepted") && p.sessionCount() == 0
	})
	if n := len(b.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestCMD_30_HostileHeloNames(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-errors=100")
	c := dial(t, p.addr)
	c.expect("220")
	c.cmd("EHLO \x1b[2J", "501")
	c.cmd("EHLO a\"b", "501")
	c.cmd("EHLO "+strings.Repeat("a", 1000), "500")
	c.cmd("EHLO "+strings.Repeat("a", 256), "501")
	c.cmd("EHLO %n%sgr\xc3\xbcn;", "501")
	c.cmd("EHLO %n%sgr\xc3\xbcn", "250")
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	if got := b.Messages()[0].Data; !strings.HasPrefix(got, "Received: from ?n?sgr??n ([127.0.0.1])\r\n") {
		t.Errorf("our field is %q", got[:80])
	}
}

// TestRES_04_ClientThatReadsNoReplies has a client that sends commands and does not read the replies.
func TestRES_04_ClientThatReadsNoReplies(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--write-timeout=1s", "--max-junk=1000000000")
	c := greeted(t, p.addr)
	must(t, c.Conn.(*net.TCPConn).SetReadBuffer(1<<16)) // full soon
	noops := strings.Repeat("HELP\r\n", 1000)
	must(t, testenv.Patient(c))
	for {
		if _, err := io.WriteString(c, noops); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the proxy still takes commands from a client that reads nothing")
			}
			break
		}
	}
	testenv.Eventually(t, "the session ends", func() bool { return p.sessionCount() == 0 })
}
