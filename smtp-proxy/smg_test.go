package main

import (
	"fmt"
	"strings"
	"testing"

	"postern/internal/smtp"
	"postern/internal/testenv"
	"postern/smtp-proxy/header"
)

// The tests of this file are the cases against SMTP smuggling: what one side takes for the end of a
// message and the other does not. A client sends two messages in one, with an odd end of data between.

// smuggled is what is sent behind the 354, with the end of data that is tried.
func smuggled(eod string) string {
	return "Subject: a\r\n\r\nline" + eod + "MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@y.test>\r\nDATA\r\nSubject: b\r\n\r\nforged\r\n.\r\n"
}

// fate says what becomes of the odd end of data.
type fate int

const (
	isRefused    fate = iota // 550, close, nothing delivered
	isNormalized             // one message, with CR LF where LF was
	isContent                // one message, byte for byte
)

// smuggle sends a message with that end of data within, to a proxy in that mode, and checks everything
// that can be seen.
func smuggle(t *testing.T, mode, eod string, want fate) {
	t.Helper()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--bare-newline", mode)
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smuggled(eod))
	if want == isRefused {
		r := c.expect("550")
		if eod := strings.ReplaceAll(eod, "\x00", ""); eod == strings.ReplaceAll(eod, "\r\n", "") && r.Enhanced != "5.5.2" && !strings.Contains(r.Text(), "NUL") {
			t.Errorf("reply %q", r)
		}
		c.expectEnd()
	} else {
		c.expect("250 2.0.0 Ok: queued as")
		c.cmd("QUIT", "221")
		c.expectEnd()
	}
	checkSmuggled(t, b, eod, want)
	testenv.Eventually(t, "the log names the client", func() bool {
		return strings.Contains(p.log.String(), "msg=session") && strings.Contains(p.log.String(), "client=127.0.0.1")
	})
}

func checkSmuggled(t *testing.T, b *testenv.Backend, eod string, want fate) {
	t.Helper()
	mails, ends := 0, 0
	for _, command := range b.Commands() {
		if strings.Contains(command, "evil") || strings.Contains(command, "victim") {
			t.Errorf("the next hop was asked %q", command)
		}
		if strings.HasPrefix(command, "MAIL") {
			mails++
		}
		if command == "." {
			ends++
		}
	}
	got := b.Messages()
	if want == isRefused {
		if len(got) != 0 || ends != 0 || mails != 1 {
			t.Errorf("%d messages, %d ends of data, %d MAIL at the next hop; want 0, 0, 1: %+v", len(got), ends, mails, got)
		}
		return
	}
	if len(got) != 1 || ends != 1 || mails != 1 {
		t.Fatalf("%d messages, %d ends of data, %d MAIL at the next hop; want one each: %+v", len(got), ends, mails, got)
	}
	text := eod
	if want == isNormalized {
		text = strings.ReplaceAll(strings.ReplaceAll(eod, "\r\n", "\n"), "\n", "\r\n")
	}
	text = strings.ReplaceAll(text, "\r\n..\r\n", "\r\n.\r\n") // the client had stuffed it
	sent := strings.TrimSuffix(strings.Replace(smuggled("@"), "@", text, 1), ".\r\n")
	if arrived := body(t, got[0]); arrived != sent {
		t.Errorf("arrived as\n%q, want\n%q", arrived, sent)
	}
	if n := strings.Count(got[0].Wire, "\r\n.\r\n"); n != 1 {
		t.Errorf("%d ends of data on the wire", n)
	}
}

// bothModes runs a case in reject and in normalize mode.
func bothModes(t *testing.T, eod string, reject, normalize fate) {
	t.Helper()
	t.Run(fmt.Sprintf("reject %q", eod), func(t *testing.T) { smuggle(t, "reject", eod, reject) })
	t.Run(fmt.Sprintf("normalize %q", eod), func(t *testing.T) { smuggle(t, "normalize", eod, normalize) })
}

func TestSMG_01_LfDotLf(t *testing.T)         { bothModes(t, "\n.\n", isRefused, isNormalized) }
func TestSMG_02_LfDotCrLf(t *testing.T)       { bothModes(t, "\n.\r\n", isRefused, isNormalized) }
func TestSMG_03_CrLfDotLf(t *testing.T)       { bothModes(t, "\r\n.\n", isRefused, isNormalized) }
func TestSMG_04_CrDotCr(t *testing.T)         { bothModes(t, "\r.\r", isRefused, isRefused) }
func TestSMG_05_CrDotLf(t *testing.T)         { bothModes(t, "\r.\n", isRefused, isRefused) }
func TestSMG_06_LfDotCr(t *testing.T)         { bothModes(t, "\n.\r", isRefused, isRefused) }
func TestSMG_07_CrDotCrLf(t *testing.T)       { bothModes(t, "\r.\r\n", isRefused, isRefused) }
func TestSMG_08_CrLfDotCr(t *testing.T)       { bothModes(t, "\r\n.\r", isRefused, isRefused) }
func TestSMG_09_CrLfDotCrCrLf(t *testing.T)   { bothModes(t, "\r\n.\r\r\n", isRefused, isRefused) }
func TestSMG_10_CrCrLfDotCrCrLf(t *testing.T) { bothModes(t, "\r\r\n.\r\r\n", isRefused, isRefused) }
func TestSMG_11_NulBeforeTheDot(t *testing.T) { bothModes(t, "\r\n\x00.\r\n", isRefused, isRefused) }
func TestSMG_12_NulBehindTheDot(t *testing.T) { bothModes(t, "\r\n.\x00\r\n", isRefused, isRefused) }

func TestSMG_13_DotAndABlankAreContent(t *testing.T) {
	t.Parallel()
	for _, eod := range []string{"\r\n.\x0b\r\n", "\r\n.\x0c\r\n", "\r\n.\x85\r\n", "\r\n. \r\n", "\r\n.\t\r\n"} {
		bothModes(t, eod, isContent, isContent)
	}
}

func TestSMG_14_EmptyLinesAroundTheDot(t *testing.T) {
	t.Parallel()
	bothModes(t, "\n\n.\n\n", isRefused, isNormalized)
	bothModes(t, "\r\n.\n\r\n", isRefused, isNormalized)
}

func TestSMG_15_StuffedDotIsContent(t *testing.T) { bothModes(t, "\r\n..\r\n", isContent, isContent) }

// sendPieces sends content in pieces, each in a segment of its own as far as the kernel allows.
func sendPieces(c *dialog, pieces ...string) {
	c.t.Helper()
	for _, piece := range pieces {
		c.send(piece)
	}
}

// deliverOne sends one message over a new proxy and gives what arrived.
func deliverOne(t *testing.T, args []string, pieces ...string) testenv.Received {
	t.Helper()
	b := testenv.StartBackend(t)
	p := startProxy(t, append(args, behind(b))...)
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	sendPieces(c, pieces...)
	c.expect("250")
	c.cmd("QUIT", "221")
	got := b.Messages()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	return got[0]
}

func TestSMG_16_EndInSingleBytes(t *testing.T) {
	t.Parallel()
	pieces := []string{"Subject: x\r\n\r\ntext"}
	for _, b := range []byte("\r\n.\r\n") {
		pieces = append(pieces, string(b))
	}
	if got := body(t, deliverOne(t, nil, pieces...)); got != "Subject: x\r\n\r\ntext\r\n" {
		t.Errorf("arrived as %q", got)
	}
}

func TestSMG_17_EndAcrossBufferEdges(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	const head = "Subject: x\r\n\r\n"
	for _, size := range []int{1, 4095, 4096, 4097, 65535, 65536} {
		content := head + strings.Repeat("a", size)
		for split := range len("\r\n.\r\n") + 1 {
			c.envelope()
			c.cmd("DATA", "354")
			c.send(content + "\r\n.\r\n"[:split])
			c.send("\r\n.\r\n"[split:])
			c.expect("250")
			all := b.Messages()
			if got := body(t, all[len(all)-1]); got != content+"\r\n" {
				t.Fatalf("size %d, split %d: arrived %d bytes, want %d", size, split, len(got), len(content)+2)
			}
		}
	}
}

func TestSMG_18_DotBehindAFullBuffer(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	for _, base := range []int{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536} {
		for n := base - 3; n <= base+1; n++ {
			c.envelope()
			c.cmd("DATA", "354")
			content := "Subject: x\r\n\r\n" + strings.Repeat("A", n)
			c.send(content)
			c.send(".\r\n.\r\n")
			c.expect("250")
			all := b.Messages()
			if got := all[len(all)-1]; body(t, got) != content+".\r\n" || !strings.HasSuffix(got.Wire, "A.\r\n.\r\n") {
				t.Fatalf("line of %d bytes with a dot at its end: arrived ending in %q", n, got.Wire[len(got.Wire)-20:])
			}
		}
	}
}

func TestSMG_19_DotBehindALineTooLong(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-line-length=1000")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n" + strings.Repeat("A", 1000))
	c.send(".\r\nHELP\r\n.\r\n")
	c.expect("554 5.6.0 Line too long")
	c.cmd("NOOP", "250")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages delivered", n)
	}
}

func TestSMG_20_FakeEndInATooLargeMessage(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--max-message-size=1000")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: x\r\n\r\n" + strings.Repeat("0123456789\r\n", 200) + "\n.\nHELP\r\nHELP\r\n.\r\n")
	c.expect("552 5.3.4")
	c.cmd("NOOP", "250 2.0.0 Ok")
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages delivered", n)
	}
}

func TestSMG_21_EmptyMessage(t *testing.T) {
	t.Parallel()
	got := deliverOne(t, []string{"--droppath"}, ".\r\n")
	if strings.Trim(got.Data, "\r\n") != "" || strings.Count(got.Wire, ".") != 1 {
		t.Errorf("arrived as %q", got.Wire)
	}
	withOurs := deliverOne(t, nil, ".\r\n")
	if rest := body(t, withOurs); rest != "\r\n" || strings.Count(withOurs.Wire, "\r\n.\r\n") != 1 {
		t.Errorf("arrived as %q", withOurs.Wire)
	}
}

func TestSMG_22_EndsOfDataFromAFilter(t *testing.T) {
	t.Parallel()
	for _, eod := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\n", "\n.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\r\n.\r\r\n", "\r\n\x00.\r\n",
		"\r\n.\x00\r\n", "\r\n.\x0b\r\n", "\r\n. \r\n", "\n\n.\n\n", "\r\n.\n\r\n", "\r\n..\r\n", "\r\n.\r\n",
	} {
		t.Run(fmt.Sprintf("%q", eod), func(t *testing.T) {
			b := testenv.StartBackend(t)
			escaped := strings.NewReplacer("\r", "%0D", "\n", "%0A", "\x00", "%01", " ", "%20").Replace(eod)
			answer := scanWith(t, "HX-A a"+escaped+"MAIL\nC\nF\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" {
					writeFile(t, words[2]+"/NEWBODY", smuggled(eod))
				}
				return answer(words)
			})
			if got := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(got, "250") {
				t.Fatalf("reply %q", got)
			}
			got := b.Messages()
			if len(got) != 1 || strings.Count(got[0].Wire, "\r\n.\r\n") != 1 {
				t.Fatalf("arrived as %+v", got)
			}
			h, _, _ := header.Split([]byte(got[0].Data))
			if h.Count("X-A") != 1 || h.Count("Subject") != 1 || h.Count("MAIL") != 0 {
				t.Errorf("header became %q", got[0].Data)
			}
		})
	}
}

func TestSMG_23_DotBehindTheAddedHeader(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"..", "..\r\n.. more", "..text\r\n"} {
		got := deliverOne(t, nil, first+"\r\n.\r\n")
		want := strings.ReplaceAll("\r\n"+first+"\r\n", "\r\n..", "\r\n.")
		if rest := body(t, got); rest != want {
			t.Errorf("content %q behind our field arrived as %q, want %q", first, rest, want)
		}
	}
}

func TestSMG_24_HugeFromLine(t *testing.T) {
	t.Parallel()
	for _, start := range []string{"From user Sat Jan  1 ", ">From "} {
		line := start + strings.Repeat("x", 100<<10)
		got := deliverOne(t, nil, line+"\r\n\r\n.\r\n")
		if !strings.Contains(got.Data, line+"\r\n") {
			t.Errorf("line that begins %q does not arrive", start)
		}
		b := testenv.StartBackend(t)
		p := startProxy(t, behind(b), "--max-line-length=1000", "--max-header-size=20K")
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd("DATA", "354")
		c.send(line + "\r\n\r\n.\r\n")
		c.expect("55")
		c.cmd("NOOP", "250")
	}
}

func TestSMG_25_BareNewlinesAnywhere(t *testing.T) {
	t.Parallel()
	for _, where := range []string{
		"Subject: a%sb\r\n\r\ntext\r\n", "Subject: a\r\n%sX: b\r\n\r\ntext\r\n",
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b%s\r\ntext\r\n--b--\r\n", "Subject: a\r\n\r\nte%sxt\r\n",
	} {
		for _, tt := range []struct {
			odd, mode string
			refused   bool
		}{{"\r", "reject", true}, {"\r", "normalize", true}, {"\n", "reject", true}, {"\n", "normalize", false}} {
			t.Run(fmt.Sprintf("%q %s in %.20q", tt.odd, tt.mode, where), func(t *testing.T) {
				content := fmt.Sprintf(where, tt.odd)
				b := testenv.StartBackend(t)
				p := startProxy(t, behind(b), "--bare-newline", tt.mode)
				c := greeted(t, p.addr)
				c.envelope()
				c.cmd("DATA", "354")
				c.send(content + ".\r\n")
				if tt.refused {
					c.expect("550 5.5.2")
					c.expectEnd()
					return
				}
				c.expect("250")
				if got := body(t, b.Messages()[0]); got != strings.ReplaceAll(strings.ReplaceAll(content, "\r\n", "\n"), "\n", "\r\n") {
					t.Errorf("arrived as %q", got)
				}
			})
		}
	}
}

// TestSMG_26_ModesByNetwork: there is no mode that lets bare line feeds through. A network may be given the other
// mode.
func TestSMG_26_ModesByNetwork(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b), "--bare-newline=reject", "--bare-newline-normalize=127.0.0.0/8")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smuggled("\n.\n"))
	c.expect("250")
	checkSmuggled(t, b, "\n.\n", isNormalized)
	p = startProxy(t, behind(b), "--bare-newline=normalize", "--bare-newline-reject=127.0.0.1")
	c = dial(t, p.addr)
	c.expect("220")
	c.send("EHLO a\n")
	c.expect("500")
	c.expectEnd()
}

func TestSMG_27_AcceptedBeforeTheEnd(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "DATA" {
			return "354 Go ahead\r\n250 2.0.0 Ok: queued already"
		}
		return ""
	})
	p := startProxy(t, behind(b))
	c := greeted(t, p.addr)
	c.envelope()
	c.send("DATA\r\n")
	r, err := smtp.ReadReply(c.r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code == 354 {
		c.send(smallMessage)
		c.expect("451")
	} else if r.Code != 451 {
		t.Errorf("reply %q", r)
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}
