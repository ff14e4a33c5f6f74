package test

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"postern/internal/testenv"
)

// mailing is a message as a client offers it, in a session of its own.
type mailing struct {
	name   string
	client string // what XCLIENT says; "": nothing
	helo   string // "": client.example
	tls    bool
	cert   bool   // the client shows a certificate
	login  bool   // and logs in
	from   string // with its parameters
	rcpts  []string
	data   string // with CR LF
}

// eol gives text the line ends of SMTP.
func eol(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// usual is the header of most messages.
const usual = "Received: from laptop (unknown [198.51.100.3])\n\tby mail.client.example with ESMTPSA id 12345;\n\tMon, 01 Jan 2024 10:00:00 +0000\n" +
	"From: \"Ann, A.\" <ann@from.test>\nTo: One <one@there.test>, two@there.test\nSubject: a subject\nX-Twice: first\n" +
	"Message-ID: <1@from.test>\nDate: Mon, 01 Jan 2024 10:00:00 +0000\nX-Twice: second\n\tfolded\n"

const (
	plainText   = usual + "\nThe first line.\n\n.\n..\n.dot\nFrom here on\nand an end.\n"
	programPart = "Content-Type: application/octet-stream; name=\"tool.exe\"\nContent-Disposition: attachment; filename=\"tool.exe\"\nContent-Transfer-Encoding: base64\n\nTVqQAAMAAAAEAAAA//8AALgAAAA=\n"
	htmlText    = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<html><body><p>An HTML =C3=A9 text</p>\n<a href=3D\"http://there.test/?utm_source=3Dmail&amp;id=3D1\">x</a></body></html>\n"
	textPart    = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nA text with \u00e9, see http://there.test/?utm_source=mail&id=1\n.\nand its end\n"
)

// parts puts parts into one.
func parts(kind, boundary string, all ...string) string {
	text := "Content-Type: multipart/" + kind + ";\n\tboundary=\"" + boundary + "\"\n\nThis is a preamble.\n"
	for _, part := range all {
		text += "--" + boundary + "\n" + part
	}
	return text + "--" + boundary + "--\n"
}

// mixed is a message of most kinds of parts.
var mixed = usual + "MIME-Version: 1.0\n" + parts("mixed", "outer", parts("alternative", "inner", textPart, htmlText), programPart,
	"Content-Type: message/rfc822\n\nFrom: inner@from.test\nSubject: inner\n"+parts("mixed", "deep", textPart, programPart))

// attachment is a message with one file.
func attachment(fields, body string) string {
	return usual + "MIME-Version: 1.0\n" + parts("mixed", "b", textPart, fields+"\n"+body)
}

var packed = base64.StdEncoding.EncodeToString([]byte("PK\x03\x04 not a whole archive"))

// corpusTexts are messages of all kinds: what is done with them is nothing.
var corpusTexts = []struct{ name, text string }{
	{"plain", plainText},
	{"mixed", mixed},
	{"html", usual + "MIME-Version: 1.0\n" + htmlText},
	{"alternative", usual + "MIME-Version: 1.0\n" + parts("alternative", "b", textPart, htmlText)},
	{"related", usual + "MIME-Version: 1.0\n" + parts("related", "b", htmlText, "Content-Type: image/png\nContent-ID: <i@x>\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\n")},
	{"digest", usual + "MIME-Version: 1.0\n" + parts("digest", "b", "\nSubject: one\n\nfirst\n", "\nSubject: two\n\nsecond\n")},
	{"report", usual + "MIME-Version: 1.0\n" + parts("report; report-type=delivery-status", "b", textPart, "Content-Type: message/delivery-status\n\nReporting-MTA: dns; x.test\n\nFinal-Recipient: rfc822; a@x.test\nAction: failed\n")},
	{"signed", usual + "MIME-Version: 1.0\n" + parts("signed; protocol=\"application/pgp-signature\"; micalg=pgp-sha256", "b", textPart, "Content-Type: application/pgp-signature\n\n-----BEGIN PGP SIGNATURE-----\n\nxx\n-----END PGP SIGNATURE-----\n")},
	{"calendar", attachment("Content-Type: text/calendar; method=REQUEST; charset=utf-8\nContent-Transfer-Encoding: 8bit\n", "BEGIN:VCALENDAR\nEND:VCALENDAR\n")},
	{"zip", attachment("Content-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=a.zip\n", packed+"\n")},
	{"quoted", attachment("Content-Type: application/x-any\nContent-Transfer-Encoding: quoted-printable\n", "=00=01 soft=\n break=3D\n")},
	{"uuencode", attachment("Content-Type: application/octet-stream; name=x.bin\nContent-Transfer-Encoding: x-uuencode\n", "begin 644 x.bin\n#0V%T\n`\nend\n")},
	{"binary", attachment("Content-Type: application/octet-stream\nContent-Transfer-Encoding: binary\n", "\x80\xff\x01\x02\x7f\n")},
	{"message", attachment("Content-Type: message/rfc822\nContent-Disposition: attachment; filename=\"old mail.eml\"\n", plainText)},
	{"external-body", attachment("Content-Type: message/external-body; access-type=anon-ftp; site=x.test; name=y\n", "Content-Type: image/gif\n\n")},
	{"rfc2231", attachment("Content-Type: text/plain; name*0*=utf-8''caf%C3%A9; name*1=.txt\nContent-Disposition: attachment; filename*=iso-8859-1''caf%E9.exe\n", "x\n")},
	{"encoded-name", attachment("Content-Type: text/plain; name=\"=?utf-8?B?Y2Fmw6kuZXhl?=\"\n", "x\n")},
	{"no-name", attachment("Content-Disposition: attachment\n", "x\n")},
	{"two-names", attachment("Content-Type: text/plain; name=a.txt\nContent-Disposition: attachment; filename=b.exe\n", "x\n")},
	{"unterminated", usual + "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nno end\n"},
	{"no-boundary", usual + "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--b\n\nx\n--b--\n"},
	{"epilogue", usual + "MIME-Version: 1.0\n" + parts("mixed", "b", textPart) + "An epilogue.\n"},
	{"no-mime-version", usual + parts("mixed", "b", textPart, programPart)},
	{"eight-bit", usual + "\nGr\xfc\xdfe, \x80\x81\xfe\xff\n"},
	{"utf8-body", usual + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße aus Łódź, 日本\n"},
	{"utf8-header", "From: Jürgen <ann@from.test>\nSubject: Grüße aus Łódź, 日本\nMessage-ID: <ü@from.test>\n\nx\n"},
	{"latin-header", "From: J\xfcrgen <ann@from.test>\nSubject: caf\xe9 100% \\ \"q\" 'q'\n\nx\n"},
	{"encoded-header", "From: =?utf-8?Q?J=C3=BCrgen?= <ann@from.test>\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\n =?utf-8?Q?_and_more?=\n\nx\n"},
	{"folded", "From: ann@from.test\nSubject: one\n two\n\tthree\n   four\nX-Folded:\n value on the next line\nMessage-ID:\n <1@from.test>\nTo: a@there.test,\n\tb@there.test\n\nx\n"},
	{"no-space", "From:ann@from.test\nSubject:no space\nX-None:\nX-Tab:\ttab\nX-Many:    many\nX-Behind: blanks \t \n\nx\n"},
	{"blank-before-colon", "From : ann@from.test\nSubject\t: spaced\nX-Two  : x\n\nx\n"},
	{"no-colon", "From: ann@from.test\nSubject: x\nthis line has no colon\nX-Later: yes\n\nx\n"},
	{"no-name-field", "From: ann@from.test\n: nameless\nSubject: x\n\nx\n"},
	{"bytes-in-name", "From: ann@from.test\nX-\xe9: x\nSubject: x\n\nx\n"},
	{"blank-continuation", "From: ann@from.test\nSubject: one\n \n two\nX-After: x\n\nx\n"},
	{"first-continued", " begins with a blank\nSubject: x\n\nx\n"},
	{"mbox", "From ann@from.test Mon Jan 1 10:00:00 2024\nFrom: ann@from.test\nSubject: x\n\nx\n"},
	{"mbox-quoted", ">From ann@from.test Mon Jan 1 10:00:00 2024\nFrom: ann@from.test\nSubject: x\n\nx\n"},
	{"control", "From: ann@from.test\nSubject: a\x01b\x7fc\x1bd\nX-Tab: a\tb\n\nx\x01\x02\n"},
	{"two-subjects", "From: ann@from.test\nSubject: one\nsubject: two\nSUBJECT: three\n\nx\n"},
	{"two-of-all", "From: a@from.test\nFrom: b@from.test\nTo: a@there.test\nTo: b@there.test\nDate: x\nDate: y\nMessage-ID: <1@a>\nMessage-Id: <2@a>\nSubject: x\n\nx\n"},
	{"two-types", "From: a@from.test\nSubject: x\nMIME-Version: 1.0\nContent-Type: text/plain\nContent-type: text/html\nX-End: x\n\n<b>x</b>\n"},
	{"many-types", "Content-Type: text/plain\nContent-Type: text/html\nContent-Type: text/x-three\nContent-Type: text/x-four\nSubject: x\n\nx\n"},
	{"two-encodings", "From: a@from.test\nMIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\nContent-Disposition: inline\nContent-Disposition: attachment\n\neA==\n"},
	{"empty-fields", "From:\nTo: \nSubject:\nMessage-ID:\nContent-Type:\nX-Empty:\n\nx\n"},
	{"only-header", "From: ann@from.test\nSubject: no body\n\n"},
	{"no-empty-line", "From: ann@from.test\nSubject: no empty line\n"},
	{"no-header", "\nA body without a header.\n"},
	{"no-header-at-all", "A text without a colon\nand another line\n"},
	{"empty", ""},
	{"empty-line", "\n"},
	{"empty-lines", usual + "\n\n\n\nx\n\n\n\n"},
	{"dots", usual + "\n.\n..\n...\n.x\n. \n\t.\n.\n"},
	{"long-lines", usual + "\n" + strings.Repeat("x", 2000) + "\n" + strings.Repeat("y ", 3000) + "\nend\n"},
	{"line-of-998", usual + "\n" + strings.Repeat("x", 998) + "\n" + strings.Repeat("y", 999) + "\n"},
	{"long-field", "From: ann@from.test\nX-Long: " + strings.Repeat("word ", 600) + "\nSubject: x\n\nx\n"},
	{"longest-field", "From: ann@from.test\nX-Long: " + strings.Repeat("x", 3000) + "\nSubject: x\n\nx\n"},
	{"long-subject", "From: ann@from.test\nSubject: " + strings.Repeat("\xe9 ", 4000) + "\n\nx\n"},
	{"many-fields", "From: ann@from.test\n" + strings.Repeat("X-Many: x\n", 300) + "\nx\n"},
	{"many-folds", "From: ann@from.test\nTo: a@there.test" + strings.Repeat(",\n\tb@there.test", 200) + "\nSubject: x\n\nx\n"},
	{"blanks", usual + "\nblanks at the end \t \n \n\t\n  x\n"},
	{"big", usual + "\n" + strings.Repeat("The quick brown fox jumps over the lazy dog, again and again.\n", 5000)},
	{"traps", usual + "\nQUIT\nDATA\n>From x\n--\n-- \n=20\n=\n" + "begin 644 x.exe\n"},
	{"received-only", strings.Repeat("Received: from a by b; Mon, 1 Jan 2024 10:00:00 +0000\n", 3) + "\nx\n"},
	{"return-path", "Return-Path: <x@from.test>\nBcc: secret@there.test\nDelivered-To: x@there.test\nFrom: ann@from.test\nSubject: x\n\nx\n"},
	{"scanned", "X-Scanned-By: somebody else\nFrom: ann@from.test\nSubject: x\n\nx\n"},
}

// corpusEnvelopes are senders and recipients of all kinds.
var corpusEnvelopes = []mailing{
	{name: "null-sender", from: "<>"},
	{name: "capitals", from: "<Ann@FROM.Test>", rcpts: []string{"<One@THERE.Test>"}},
	{name: "quoted", from: "<\"a b\"@from.test>", rcpts: []string{"<\"c, d\"@there.test>", "<\"plain\"@there.test>"}},
	{name: "route", from: "<@a.test,@b.test:ann@from.test>", rcpts: []string{"<@a.test:one@there.test>"}},
	{name: "percent", from: "<a=b+c@from.test>", rcpts: []string{"<100%one@there.test>"}},
	{name: "parameters", from: "<ann@from.test> SIZE=812 BODY=8BITMIME RET=HDRS ENVID=QQ314+3D", rcpts: []string{"<one@there.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;One+40@there.test", "<two@there.test> NOTIFY=NEVER"}},
	{name: "utf8", from: "<jürgen@bücher.test> BODY=8BITMIME SMTPUTF8", rcpts: []string{"<köln@there.test>"}},
	{name: "again", from: "<ann@from.test>", rcpts: []string{"<one@there.test>", "<one@there.test>", "<ONE@there.test>"}},
	{name: "refused", rcpts: []string{"<one@there.test>", "<refused@there.test>", "<two@there.test>"}},
	{name: "literal", from: "<ann@[192.0.2.1]>", rcpts: []string{"<one@there.test>"}},
	{name: "many", from: "<ann@from.test>", rcpts: many(testenv.Load(200, 1000))},
	{name: "unknown", client: "NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4000"},
	{name: "named", client: "NAME=mail.client.example ADDR=192.0.2.7 PORT=4000"},
	{name: "six", client: "NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::9 PORT=4000"},
	{name: "six-named", client: "NAME=six.client.example ADDR=IPV6:2001:db8::9 PORT=4000", from: "<>"},
	{name: "xclient-login", client: "NAME=mail.client.example ADDR=192.0.2.7 PORT=4000 LOGIN=ann"},
	{name: "helo-literal", helo: "[192.0.2.7]"},
	{name: "helo-odd", helo: "a_b.%41"},
	{name: "tls", tls: true},
	{name: "cert", tls: true, cert: true},
	{name: "login", tls: true, login: true},
}

func many(n int) (rcpts []string) {
	for i := range n {
		rcpts = append(rcpts, fmt.Sprintf("<many%d@there.test>", i))
	}
	return rcpts
}

// corpusAnswers are what the filter can answer to questions; every-action.pl has the same.
var corpusAnswers = []string{"accept", "code", "delay", "discard", "empty", "later", "lines", "minus", "number", "odd", "percent", "reject", "tempfail", "word", "zero"}

// headerActions are those to which it is all the same whether a message has parts.
var headerActions = regexp.MustCompile(`^(bounce|tempfail|discard|add|insert|change|delete|recipient|sender|hold|log|key|raw|dies|prints)`)

// corpus is everything that is offered; actions are the names that the filter has for what it does.
func corpus(actions []string) (all []mailing) {
	for _, t := range corpusTexts {
		all = append(all, mailing{name: "text " + t.name, data: t.text})
	}
	for _, o := range corpusEnvelopes {
		o.name = "envelope " + o.name
		all = append(all, o)
	}
	for i, answer := range corpusAnswers {
		if answer == "delay" { // once is enough
			all = append(all, mailing{name: "helook delay", helo: "delay.helo.test"})
			continue
		}
		all = append(all,
			mailing{name: "relayok " + answer, client: fmt.Sprintf("NAME=[UNAVAILABLE] ADDR=192.0.2.1%02d PORT=4000", i)},
			mailing{name: "helook " + answer, helo: answer + ".helo.test"},
			mailing{name: "senderok " + answer, from: "<" + answer + ".sender@from.test>"},
			mailing{name: "recipok " + answer, rcpts: []string{"<one@there.test>", "<" + answer + ".rcpt@there.test>", "<two@there.test>"}},
		)
	}
	for _, action := range actions {
		from := "<do." + action + "@from.test>"
		if !headerActions.MatchString(action) {
			all = append(all, mailing{name: "do " + action + " parts", from: from, data: mixed})
		}
		all = append(all, mailing{name: "do " + action, from: from})
	}
	for i := range all {
		o := &all[i]
		if o.helo == "" {
			o.helo = "client.example"
		}
		if o.from == "" {
			o.from = "<ann@from.test>"
		}
		if !strings.Contains(o.from, " ") {
			o.from += " BODY=8BITMIME" // so that the server does not guess
		}
		if o.rcpts == nil {
			o.rcpts = []string{"<one@there.test>", "<two@there.test>"}
		}
		if o.data == "" && o.name != "text empty" {
			o.data = plainText
		}
		o.data = eol(o.data)
	}
	return all
}
