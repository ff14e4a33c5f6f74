package main

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// client is how a program that makes mail writes it: its boundaries, the name of a file in the two fields, and what
// its header has.
type client struct {
	name     string
	boundary func(n int) string // of the n-th multipart, quoted as the client quotes it
	file     func(mediaType, name string) string
	header   string
}

// oneLine and folded are the common ways to name a file.
func oneLine(mediaType, name string) string {
	return fmt.Sprintf("Content-Type: %s; name=%q\nContent-Disposition: attachment; filename=%q\n", mediaType, name, name)
}

func folded(mediaType, name string) string {
	return fmt.Sprintf("Content-Type: %s;\n\tname=%q\nContent-Disposition: attachment;\n\tfilename=%q\n", mediaType, name, name)
}

func boundaries(format string) func(n int) string {
	return func(n int) string { return fmt.Sprintf(format, n) }
}

// dkim is a signature that lists the names of MIME fields in its folds, as many do.
const dkim = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=a.test; s=s1;\n" +
	"\th=From:To:Subject:Date:Message-ID:MIME-Version:\n Content-Type:Content-Transfer-Encoding:Content-Disposition:From;\n" +
	"\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\n\tb=AAAA\n BBBB==\n"

var clients = []client{
	{"Outlook", boundaries(`"----=_NextPart_00%d_0001_01D9A4C3.8E1B2A40"`), folded,
		"Thread-Index: AdmkxI4bKkA=\nContent-Language: en-us\nX-Mailer: Microsoft Outlook 16.0\n"},
	{"Exchange", boundaries(`"_00%d_DB9PR04MB8461A1B2C3DB9PR04MB8461eurp_"`),
		func(mediaType, name string) string {
			return fmt.Sprintf("Content-Type: %s; name=%q\nContent-Description: %s\nContent-Disposition: attachment; filename=%q; size=184320;\n\t"+
				"creation-date=\"Sat, 28 Nov 2026 10:00:00 GMT\";\n\tmodification-date=\"Sat, 28 Nov 2026 10:00:00 GMT\"\n", mediaType, name, name, name)
		}, dkim + "X-MS-Has-Attach: yes\nX-MS-TNEF-Correlator:\nx-ms-exchange-antispam-messagedata-0: =?us-ascii?Q?abc=3D?=\n =?us-ascii?Q?def?=\n"},
	{"Gmail", boundaries(`"00000000000054f6%d061b2f8e3"`), func(mediaType, name string) string {
		return fmt.Sprintf("Content-Type: %s; name=%q\nContent-Disposition: attachment; filename=%q\nX-Attachment-Id: f_lj1x\nContent-ID: <f_lj1x>\n", mediaType, name, name)
	}, dkim},
	{"Apple Mail", boundaries(`"Apple-Mail=_3F2504E0-4F89-11D3-9A0C-0305E82C330%d"`), func(mediaType, name string) string {
		return fmt.Sprintf("Content-Disposition: attachment;\n\tfilename=%s\nContent-Type: %s;\n\tx-unix-mode=0644;\n\tname=%q\n", strings.ReplaceAll(name, " ", "_"), mediaType, name)
	}, "X-Mailer: Apple Mail (2.3774.300.61.1.2)\n"},
	{"Thunderbird", boundaries(`"------------0wMbqBdN%dxYzNuJf"`), oneLine, "User-Agent: Mozilla Thunderbird\nContent-Language: de-DE\n"},
	{"mutt", boundaries(`gJNQRAHI5jiYqw2y%d`), func(mediaType, name string) string {
		return fmt.Sprintf("Content-Type: %s\nContent-Disposition: attachment; filename=%q\n", mediaType, name)
	}, "Content-Disposition: inline\nUser-Agent: Mutt/2.2.9\n"},
	{"Roundcube", boundaries(`"=_c5b4f5d3a1e2%d"`), folded, "User-Agent: Roundcube Webmail/1.6.1\n"},
	{"PHPMailer", boundaries(`"b%d_kQxJw0bX3zq"`), oneLine, "X-Mailer: PHPMailer 6.8.0\n"},
	{"JavaMail", boundaries(`"----=_Part_%d_1164923484.1690000000000"`), folded, ""},
	{"Python", boundaries(`"===============532145632145678914%d=="`), func(mediaType, name string) string {
		return fmt.Sprintf("Content-Type: %s\nContent-Disposition: attachment; filename=\"%s\"\nMIME-Version: 1.0\n", mediaType, name)
	}, ""},
	{"Notes", boundaries(`"0__=0ABB0B5ADFF9A6%d1"`), oneLine, "X-Mailer: HCL Notes\nX-MIMETrack: Serialize by Router on A/B at 28.11.2026 10:00:00\n"},
	{"Zimbra", boundaries(`"=_5c1f6d1e-4b4e-4e4e-9d4b-%d"`), oneLine, "X-Mailer: Zimbra 8.8\n"},
	{"PHP script", boundaries(`"PHP-mixed-%d9f86d081884c7d"`), func(mediaType, name string) string {
		return fmt.Sprintf("Content-Type: %s; name=\"%s\"\nContent-Disposition: attachment\n", mediaType, name)
	}, "X-PHP-Originating-Script: 33:mail.php\n"},
	{"scanner", boundaries(`"=_scan_to_mail_boundary_%d"`), oneLine, "X-Mailer: Scan to E-mail\nX-Priority: 3\n"},
}

// Contents of parts.
var (
	pdf  = lines64("%PDF-1.7\n" + strings.Repeat("stream of an invoice ", 50))
	text = "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\n\n" +
		"Hello,\n\nplease find =E2=80=9Cthe report=E2=80=9D attached, as agreed in =\nour meeting.\n\n-- =20\nAnna\n"
	html = "Content-Type: text/html; charset=\"utf-8\"\nContent-Transfer-Encoding: quoted-printable\n\n" +
		"<html><head><meta http-equiv=3D\"Content-Type\" content=3D\"text/html; charset=3Dutf-8\"></head>=\n<body><p>Hello</p></body></html>\n"
	rule = "________________________________\n-----Original Message-----\nFrom: Bob <b@b.test>\nSent: Friday\nTo: Anna\nSubject: report\n\n> begin with the end\n--\nBob\n"
)

func lines64(s string) string {
	var b strings.Builder
	for e := base64.StdEncoding.EncodeToString([]byte(s)); e != ""; {
		n := min(76, len(e))
		b.WriteString(e[:n] + "\n")
		e = e[n:]
	}
	return b.String()
}

// multipart writes the n-th multipart of a client.
func (c client) multipart(n int, kind, more string, parts ...string) string {
	b := c.boundary(n)
	var out strings.Builder
	fmt.Fprintf(&out, "Content-Type: multipart/%s;\n\tboundary=%s%s\n\n", kind, b, more)
	if n == 0 {
		out.WriteString("This is a multi-part message in MIME format.\n")
	}
	for _, p := range parts {
		fmt.Fprintf(&out, "\n--%s\n%s", strings.Trim(b, `"`), p)
	}
	fmt.Fprintf(&out, "\n--%s--\n", strings.Trim(b, `"`))
	return out.String()
}

func (c client) attach(mediaType, name string) string {
	return c.file(mediaType, name) + "Content-Transfer-Encoding: base64\n\n" + pdf
}

// structures are those of ordinary mail, without the header of the message.
var structures = []struct {
	name string
	make func(c client) string
}{
	{"no MIME", func(client) string {
		return "\nHello,\n\nbegin with this, please.\n\nFrom here on it is easy.\n-- \nAnna\n" + rule
	}},
	{"plain, 8-bit", func(client) string {
		return "Content-Type: text/plain; charset=iso-8859-1; format=flowed\nContent-Transfer-Encoding: 8bit\n\nGr\xfc\xdfe \n" + rule
	}},
	{"plain, base64", func(client) string {
		return "Content-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: base64\n\n" + lines64("Grüße aus Köln\n"+rule)
	}},
	{"HTML only", func(client) string { return html }},
	{"alternative", func(c client) string { return c.multipart(0, "alternative", "", text, html) }},
	{"one attachment", func(c client) string {
		return c.multipart(0, "mixed", "; charset=utf-8", text, c.attach("application/pdf", "report 2026.pdf"))
	}},
	{"nested", func(c client) string {
		image := "Content-Type: image/png; name=\"image001.png\"\nContent-Transfer-Encoding: base64\nContent-ID: <image001.png@01D9>\n" +
			"Content-Disposition: inline; filename=\"image001.png\"\n\n" + lines64("\x89PNG\r\n\x1a\n"+strings.Repeat("pixels", 99))
		alternative := c.multipart(2, "alternative", "", text, html)
		related := c.multipart(1, "related", ";\n\ttype=\"multipart/alternative\"", alternative, image)
		return c.multipart(0, "mixed", "", related, c.attach("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "minutes.docx"),
			c.attach("application/octet-stream", "table.xlsx"))
	}},
	{"names in other alphabets", func(c client) string {
		return c.multipart(0, "mixed", "", text,
			"Content-Type: application/pdf;\n name=\"=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte("Übersicht März.pdf"))+"?=\"\n"+
				"Content-Disposition: attachment;\n filename*0*=UTF-8''%C3%9Cbersicht%20der%20Kosten%20und%20der%20;\n filename*1*=Ertr%C3%A4ge%20M%C3%A4rz.pdf\n"+
				"Content-Transfer-Encoding: base64\n\n"+pdf,
			"Content-Type: application/pdf; name=\"=?iso-2022-jp?B?GyRCSXQbKEIucGRm?=\"\nContent-Disposition: attachment;\n"+
				" filename=\"=?iso-2022-jp?B?GyRCSXQbKEIucGRm?=\"\nContent-Transfer-Encoding: base64\n\n"+pdf,
			"Content-Type: text/plain; charset=us-ascii;\n name=\"=?utf-8?q?r=C3=A9sum=C3=A9?=\n =?utf-8?q?_long.txt?=\"\nContent-Disposition: attachment; filename=report (1).txt\n\nx\n")
	}},
	{"delivery report", func(c client) string {
		return c.multipart(0, "report", "; report-type=delivery-status", "Content-Description: Notification\nContent-Type: text/plain; charset=us-ascii\n\nUnknown user.\n",
			"Content-Description: Delivery report\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; a.test\n\nFinal-Recipient: rfc822; x@b.test\nAction: failed\nStatus: 5.1.1\n",
			"Content-Description: Undelivered Message\nContent-Type: message/rfc822\n\nFrom: a@a.test\nSubject: x\n"+c.multipart(1, "alternative", "", text, html))
	}},
	{"delivery report with a header", func(c client) string {
		return c.multipart(0, "report", "; report-type=delivery-status", text, "Content-Type: message/delivery-status\n\nReporting-MTA: dns; a.test\n",
			"Content-Type: text/rfc822-headers\n\nReceived: from x\n by y\nFrom: a@a.test\nContent-Type: multipart/mixed; boundary=\"zzz\"\nSubject: x\n")
	}},
	{"receipt", func(c client) string {
		return c.multipart(0, "report", "; report-type=disposition-notification", text,
			"Content-Type: message/disposition-notification\nContent-Transfer-Encoding: 7bit\n\nReporting-UA: a\nFinal-Recipient: rfc822;a@a.test\nDisposition: manual-action/MDN-sent-manually; displayed\n")
	}},
	{"forward of a forward", func(c client) string {
		inner := "From: x@x.test\nSubject: Fwd: minutes\nMIME-Version: 1.0\n" + c.multipart(2, "mixed", "", text, c.attach("application/pdf", "a.pdf"))
		middle := "From: y@y.test\nSubject: Fwd: Fwd: minutes\nMIME-Version: 1.0\n" + c.multipart(1, "mixed", "", text,
			"Content-Type: message/rfc822; name=\"minutes.eml\"\nContent-Disposition: attachment; filename=\"minutes.eml\"\nContent-Transfer-Encoding: 7bit\n\n"+inner)
		return c.multipart(0, "mixed", "", text, "Content-Type: message/rfc822\nContent-Disposition: inline\n\n"+middle)
	}},
	{"message as data", func(c client) string {
		return c.multipart(0, "mixed", "", text, c.file("application/octet-stream", "old mail.eml")+"Content-Transfer-Encoding: base64\n\n"+
			lines64("From: a@a.test\nSubject: old\nMIME-Version: 1.0\n"+c.multipart(1, "mixed", "", text, c.attach("image/jpeg", "photo.jpg"))))
	}},
	{"invitation", func(c client) string {
		calendar := "BEGIN:VCALENDAR\nVERSION:2.0\nMETHOD:REQUEST\nBEGIN:VEVENT\nSUMMARY:Meeting\nEND:VEVENT\nEND:VCALENDAR\n"
		return c.multipart(0, "mixed", "", c.multipart(1, "alternative", "", text, html,
			"Content-Type: text/calendar; charset=\"utf-8\"; method=REQUEST\nContent-Transfer-Encoding: base64\n\n"+lines64(calendar)),
			"Content-Type: application/ics; name=\"invite.ics\"\nContent-Disposition: attachment; filename=\"invite.ics\"\nContent-Transfer-Encoding: base64\n\n"+lines64(calendar))
	}},
	{"S/MIME", func(c client) string {
		return c.multipart(0, "signed", "; protocol=\"application/pkcs7-signature\";\n\tmicalg=\"sha-256\"", c.multipart(1, "alternative", "", text, html),
			"Content-Type: application/pkcs7-signature; name=\"smime.p7s\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"smime.p7s\"\n\n"+pdf)
	}},
	{"S/MIME, encrypted", func(client) string {
		return "Content-Type: application/pkcs7-mime; name=smime.p7m;\n smime-type=enveloped-data\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=smime.p7m\n\n" + pdf
	}},
	{"PGP/MIME", func(c client) string {
		return c.multipart(0, "signed", "; micalg=pgp-sha512; protocol=\"application/pgp-signature\"",
			"Content-Type: multipart/mixed; boundary=\"inner\";\n protected-headers=\"v1\"\nFrom: Anna <a@a.test>\nSubject: report\n\n--inner\n"+text+"\n--inner--\n",
			"Content-Type: application/pgp-signature; name=\"OpenPGP_signature.asc\"\nContent-Description: OpenPGP digital signature\n"+
				"Content-Disposition: attachment; filename=\"OpenPGP_signature\"\n\n-----BEGIN PGP SIGNATURE-----\n\n"+pdf+"=abcd\n-----END PGP SIGNATURE-----\n")
	}},
	{"PGP/MIME, encrypted", func(c client) string {
		return c.multipart(0, "encrypted", "; protocol=\"application/pgp-encrypted\"", "Content-Type: application/pgp-encrypted\nContent-Description: PGP/MIME version identification\n\nVersion: 1\n",
			"Content-Type: application/octet-stream; name=\"encrypted.asc\"\nContent-Disposition: inline; filename=\"encrypted.asc\"\n\n-----BEGIN PGP MESSAGE-----\n\n"+pdf+"=abcd\n-----END PGP MESSAGE-----\n")
	}},
	{"mailing list with a footer", func(c client) string {
		return c.multipart(0, "mixed", "", c.multipart(1, "alternative", "", text, html), "Content-Type: text/plain; charset=\"us-ascii\"\nMIME-Version: 1.0\n"+
			"Content-Transfer-Encoding: 7bit\nContent-Disposition: inline\n\n_______________________________________________\nlist mailing list\nlist@lists.test\n")
	}},
	{"digest of a list", func(c client) string {
		return c.multipart(0, "mixed", "", "Content-Type: text/plain; charset=us-ascii\n\nToday's topics:\n\n   1. one\n",
			c.multipart(1, "digest", "", "\nFrom: a@a.test\nSubject: one\nContent-Type: text/plain; charset=utf-8\n\nfirst\n",
				"Content-Type: message/rfc822\nMIME-Version: 1.0\n\nFrom: b@b.test\nSubject: two\n\nsecond\n"))
	}},
	{"footer in base64", func(client) string {
		return "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n" + lines64(rule) + lines64("-- \nA list.\n")
	}},
	{"about MIME", func(c client) string {
		return c.multipart(0, "mixed", "", "Content-Type: text/plain\n\nThe header of the part is\n\n  Content-Disposition: attachment; filename=\"a.exe\"\nand then\n\n"+
			"Content-Type: application/x-msdownload; name=a.exe\n\n--b\n--b--\nAs you see.\n", c.attach("text/x-patch", "mime.patch"))
	}},
	{"TNEF", func(c client) string {
		return c.multipart(0, "mixed", "", text, "Content-Type: application/ms-tnef; name=\"winmail.dat\"\nContent-Transfer-Encoding: base64\n\n"+lines64("\x78\x9f\x3e\x22"+strings.Repeat("tnef", 99)))
	}},
	{"no text", func(c client) string { return c.multipart(0, "mixed", "", c.attach("application/pdf", "scan0001.pdf")) }},
	{"bad but common encodings", func(c client) string {
		return c.multipart(0, "mixed", "", "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8-bit\n\nGr\xc3\xbc\xc3\x9fe\n",
			"Content-Type: text/plain\nContent-Transfer-Encoding: 7BIT\n\nHello\n", "Content-Type: text/html\nContent-Transfer-Encoding: Quoted-Printable\n\n<a href=\"x?a=b&c=zz\">x</a>\n")
	}},
	{"no line end behind the last part", func(c client) string { return strings.TrimSuffix(c.multipart(0, "alternative", "", text, html), "\n") }},
	{"CRLF", func(c client) string {
		return strings.ReplaceAll(c.multipart(0, "mixed", "", text, html), "\n", "\r\n")
	}},
}

// TestOrdinaryMessages has messages as ordinary programs make them: nothing is blocked, and nobody differs about them.
func TestOrdinaryMessages(t *testing.T) {
	s := settings(t, "--on-ambiguous=reject")
	n := 0
	for _, c := range clients {
		for _, structure := range structures {
			n++
			t.Run(c.name+"/"+structure.name, func(t *testing.T) {
				message := "Received: from a.test (a.test [192.0.2.1])\n\tby b.test; Sat, 28 Nov 2026 10:00:00 +0000\nFrom: Anna <a@a.test>\nTo: b@b.test\nSubject: report\n" +
					"Date: Sat, 28 Nov 2026 10:00:00 +0000\nMIME-Version: 1.0\n" + c.header + structure.make(c)
				ambiguities, err := examineAll(t, s, message)
				if err != nil || len(ambiguities) > 0 {
					t.Errorf("%s\nfound %v, ambiguities %q", message, err, ambiguities)
				}
			})
		}
	}
	if n < 200 {
		t.Errorf("only %d messages", n)
	}
}
