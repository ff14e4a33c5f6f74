package mime

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// found is all that a walk shows.
type found struct {
	names, contents []string
	ambiguities     []string
}

// walk walks through a message and gives what it shows.
func walk(t testing.TB, message string) found {
	t.Helper()
	var f found
	var err error
	f.ambiguities, err = Walk([]byte(message), Limits{}, Viewer{
		Name: func(_ *Part, name string) error { f.names = append(f.names, name); return nil },
		Content: func(_ *Part, r io.Reader) error {
			b, err := io.ReadAll(r)
			f.contents = append(f.contents, string(b))
			return err
		},
	})
	if err != nil {
		t.Fatalf("%q: %v", message, err)
	}
	return f
}

// secret is what is hidden in the tests, and evil its name.
const (
	secret = "This is what nobody was meant to see: MZ."
	evil   = "evil.exe"
)

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// uuencoded is a uuencoded text of one line.
func uuencoded(s string) string {
	var b strings.Builder
	b.WriteByte(byte(len(s)) + ' ')
	for i := 0; i < len(s); i += 3 {
		var g [3]byte
		copy(g[:], s[i:])
		for _, v := range []byte{g[0] >> 2, g[0]&3<<4 | g[1]>>4, g[1]&15<<2 | g[2]>>6, g[2] & 63} {
			b.WriteByte(v + ' ')
		}
	}
	return b.String()
}

// yencoded is yEnc of one line.
func yencoded(s string) string {
	var b []byte
	for _, c := range []byte(s) {
		if c += 42; c == 0 || c == '\n' || c == '\r' || c == '=' {
			b = append(b, '=')
			c += 64
		}
		b = append(b, c)
	}
	return string(b)
}

// binhexed is BinHex 4.0 of a file, without its runs and checksums.
func binhexed(name, s string) string {
	return packedBinHex(name, strings.ReplaceAll(s, "\x90", "\x90\x00"), len(s))
}

// packedBinHex is that of a file whose content is packed already, from n bytes.
func packedBinHex(name, packed string, n int) string {
	data := append([]byte{byte(len(name))}, name...)
	data = append(data, 0)
	data = append(data, "TYPECREA\x00\x00"...)
	data = append(data, byte(n>>24), byte(n>>16), byte(n>>8), byte(n), 0, 0, 0, 0, 0, 0)
	data = append(bytes.ReplaceAll(data, []byte{0x90}, []byte{0x90, 0}), packed...)
	var b strings.Builder
	for i := 0; i < len(data); i += 3 {
		var g [3]byte
		copy(g[:], data[i:])
		for _, v := range []byte{g[0] >> 2, g[0]&3<<4 | g[1]>>4, g[1]&15<<2 | g[2]>>6, g[2] & 63} {
			b.WriteByte(binhexAlphabet[v])
		}
	}
	return "(This file must be converted with BinHex 4.0)\n\n:" + b.String() + ":\n"
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

// part is a message with a text, and a part that has these fields, and the secret in base64.
func part(fields ...string) string {
	return mixed("Content-Transfer-Encoding: base64\n" + strings.Join(fields, "\n") + "\n\n" + encode64(secret) + "\n")
}

// mixed is a multipart with a text and one more part.
func mixed(second string) string {
	return multi("multipart/mixed; boundary=b", second)
}

func multi(contentType, second string) string {
	return "From: a@b.test\nMIME-Version: 1.0\nContent-Type: " + contentType +
		"\n\npreamble\n--b\nContent-Type: text/plain\n\nhello\n--b\n" + second + "--b--\nepilogue\n"
}

// TestNames has a name in fields that readers read in different ways.
func TestNames(t *testing.T) {
	disposition := func(p string) string { return part("Content-Disposition: attachment" + p) }
	utf16 := func(s string) string {
		var b []byte
		for _, c := range []byte(s) {
			b = append(b, 0, c)
		}
		return string(b)
	}
	tests := []struct{ name, message string }{
		{"plain", disposition("; filename=evil.exe")},
		{"comment in front of a parameter", disposition(`; (c) filename="evil.exe"`)},
		{"comment around the equals sign", disposition(`; filename (x) = (y) "evil.exe"`)},
		{"comment with a quote", disposition(`; (") filename="evil.exe"`)},
		{"comment that does not end", disposition(`; (c filename="evil.exe"`)},
		{"comment that does not end behind it", disposition(`; filename=evil.exe(`)},
		{"parenthesis in front of the field", part("X-A: b(", ")Content-Disposition: attachment; filename=evil.exe")},
		{"parameter inside a comment", disposition(`; (; filename="evil.exe"; )`)},
		{"nested comment", disposition(`; (a(b)c) filename=evil.exe`)},
		{"missing semicolon", disposition(` filename="evil.exe"`)},
		{"missing semicolon between parameters", part(`Content-Type: application/x; charset=utf-8 name=evil.exe`)},
		{"missing semicolon behind a quote", part(`Content-Type: application/x; charset="utf-8" name="evil.exe"`)},
		{"missing semicolon and white space", part(`Content-Type: application/x; charset="utf-8"name="evil.exe"`)},
		{"comma", disposition(`, filename=evil.exe`)},
		{"white space in front of the colon", part("Content-Disposition : attachment; filename=evil.exe")},
		{"tab in front of the colon", part("Content-Disposition\t: attachment; filename=evil.exe")},
		{"control byte in the name of the field", part("Content-\x01Disposition: attachment; filename=evil.exe")},
		{"byte order mark", part("\ufeffContent-Disposition: attachment; filename=evil.exe")},
		{"byte order mark in front of a header", mixed("\ufeffContent-Disposition: attachment; filename=evil.exe\n\nx\n")},
		{"underscore", part("Content_Disposition: attachment; filename=evil.exe")},
		{"white space in front of the field", mixed(" Content-Disposition: attachment; filename=evil.exe\n\nx\n")},
		{"inside a fold", part("X-A: b", " Content-Disposition: attachment; filename=evil.exe")},
		{"behind a line without a colon", part("nonsense", "Content-Disposition: attachment; filename=evil.exe")},
		{"behind a line of white space", part("X-A: b", " \t", "Content-Disposition: attachment; filename=evil.exe")},
		{"behind an empty line", mixed("\nContent-Disposition: attachment; filename=evil.exe\n\nx\n")},
		{"behind a bare CR", part("X-A: b\rContent-Disposition: attachment; filename=evil.exe")},
		{"NUL in the name of the field", part("Content-Dispo\x00sition: attachment; filename=evil.exe")},
		{"line end in front of the colon", part("Content-Disposition", " : attachment; filename=evil.exe")},
		{"whole value as a word", part("Content-Disposition: =?utf-8?Q?attachment;_filename=3Devil.exe?=")},
		{"two colons", part("Content-Disposition:: attachment; filename=evil.exe")},
		{"key in capitals", disposition("; FILENAME=evil.exe")},
		{"white space around a star", disposition("; filename *0=evil; filename*1 = .exe")},
		{"first of two fields", part("Content-Disposition: attachment; filename=evil.exe", "Content-Disposition: attachment; filename=a.txt")},
		{"last of two fields", part("Content-Disposition: attachment; filename=a.txt", "Content-Disposition: attachment; filename=evil.exe")},
		{"first of two parameters", disposition("; filename=evil.exe; filename=a.txt")},
		{"last of two parameters", disposition("; filename=a.txt; filename=evil.exe")},
		{"open quote", disposition(`; filename="evil.exe`)},
		{"open quote in front of a parameter", disposition(`; filename="evil.exe; size=1`)},
		{"open quote of another parameter", disposition(`; x="; filename=evil.exe`)},
		{"quote behind a quote", disposition(`; filename="evil"".exe"`)},
		{"quotes inside", disposition(`; filename=ev"il".exe`)},
		{"backslash that means nothing", disposition(`; filename="evil.exe\" "`)},
		{"backslash that escapes", disposition(`; filename="evil.e\xe"`)},
		{"2231", disposition(`; filename*=utf-8''evil%2Eexe`)},
		{"2231, twice", disposition(`; filename*=utf-8''evil%252Eexe`)},
		{"2231 without a charset", disposition(`; filename*=evil%2Eexe`)},
		{"2231 in UTF-16", disposition(`; filename*=utf-16be''%00e%00v%00i%00l%00.%00e%00x%00e`)},
		{"2231 in pieces", disposition(`; filename*0=ev; filename*1=il.; filename*2=exe`)},
		{"2231 out of order", disposition(`; filename*2=exe; filename*0=ev; filename*1=il.`)},
		{"2231 as they stand", disposition(`; filename*1=ev; filename*0=il.exe`)},
		{"2231 with a gap", disposition(`; filename*0=evil; filename*2=.exe`)},
		{"2231 up to a gap", disposition(`; filename*0=evil.exe; filename*2=.txt`)},
		{"2231 without the first", disposition(`; filename*1=evil; filename*2=.exe`)},
		{"2231, first of two pieces", disposition(`; filename*0=evil; filename*1=.exe; filename*1=.txt`)},
		{"2231, last of two pieces", disposition(`; filename*0=evil; filename*1=.txt; filename*1=.exe`)},
		{"2231, numbers with zeros", disposition(`; filename*00=evil; filename*01=.exe`)},
		{"2231, escape over two pieces", disposition(`; filename*0*=utf-8''evil%2; filename*1*=Eexe`)},
		{"2231, mixed", disposition(`; filename*0*=utf-8''evil%2E; filename*1=exe`)},
		{"2231 beside a plain one", disposition(`; filename=a.txt; filename*=utf-8''evil.exe`)},
		{"word", disposition(`; filename="=?utf-8?B?` + encode64(evil) + `?="`)},
		{"word without padding", disposition(`; filename="=?utf-8?B?` + strings.TrimRight(encode64(evil+"  "), "=") + `?="`)},
		{"word in letters of URLs", disposition(`; filename="=?utf-8?B?` + base64.URLEncoding.EncodeToString([]byte("ÿþ?>evil.exe")) + `?="`)},
		{"word in quoted-printable", disposition(`; filename="=?utf-8?Q?evil=2Eexe?="`)},
		{"word without an end", disposition(`; filename="=?utf-8?Q?evil=2Eexe"`)},
		{"words that split a character", disposition(`; filename="=?utf-8?Q?=C3?= =?utf-8?Q?=A4evil.exe?="`)},
		{"words in two charsets", disposition(`; filename="=?utf-8?Q?evil?= =?iso-8859-1?Q?=2Eexe?="`)},
		{"word in a word", disposition(`; filename="=?utf-8?B?` + encode64("=?utf-8?Q?evil=2Eexe?=") + `?="`)},
		{"word with a language", disposition(`; filename="=?utf-8*en?Q?evil=2Eexe?="`)},
		{"word in UTF-16", disposition(`; filename="=?utf-16be?B?` + encode64(utf16(evil)) + `?="`)},
		{"word in UTF-7", disposition(`; filename="=?utf-7?Q?evil+AC4-exe?="`)},
		{"word in an unknown charset", disposition(`; filename="=?x-none?Q?evil=2Eexe?="`)},
		{"word in a charset with a long name", disposition(`; filename="=?` + strings.Repeat("x", 100) + `?Q?evil=2Eexe?="`)},
		{"word with white space in it", disposition(`; filename="=?utf-8?Q?evil =2Eexe?="`)},
		{"folded word", disposition(`; filename="=?utf-8?B?` + encode64(evil)[:4] + "\n " + encode64(evil)[4:] + `?="`)},
		{"percent escapes", disposition(`; filename="evil%2Eexe"`)},
		{"spaces", disposition(`; filename=my evil.exe`)},
		{"name of the type", part("Content-Type: application/x; name=evil.exe")},
		{"field behind an empty line and many other fields", mixed("\n" + strings.Repeat("A: b\n c: d\n", firstFields) + "Content-Type: application/x; name=evil.exe\n\nx\n")},
		{"field behind an empty line and another field", mixed("\nA: b\n c: d\nContent-Type: application/x; name=evil.exe\n\nx\n")},
		{"uuencoded", "Subject: x\n\nhello\nbegin 644 evil.exe\n" + uuencoded(secret) + "\nend\n"},
		{"uuencoded, second", "Subject: x\n\nbegin 644 a.txt\n" + uuencoded("a") + "\nend\nbegin 644 evil.exe\n" + uuencoded(secret) + "\nend\n"},
		{"uuencoded in quoted-printable", "Content-Transfer-Encoding: quoted-printable\n\nbegin 644 evil.e=78e\n" + strings.ReplaceAll(uuencoded(secret), "=", "=3D") + "\nend\n"},
		{"begin-base64", "Subject: x\n\nbegin-base64 644 evil.exe\n" + encode64(secret) + "\n====\n"},
		{"yEnc", "Subject: x\n\n=ybegin line=128 size=41 name=evil.exe\n" + yencoded(secret) + "\n=yend size=41\n"},
		{"BinHex", "Subject: x\n\n" + binhexed(evil, secret)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := walk(t, tt.message)
			if !slices.ContainsFunc(f.names, func(n string) bool { return strings.HasSuffix(strings.TrimRight(n, " \""), evil) }) {
				t.Errorf("%s\nnames %q", tt.message, f.names)
			}
		})
	}
}

// TestContents hides a part in a structure or an encoding that readers read in different ways.
func TestContents(t *testing.T) {
	const name = "Content-Disposition: attachment; filename=evil.exe\nContent-Transfer-Encoding: base64\n"
	hidden := name + "\n" + encode64(secret) + "\n"
	inner := "Subject: inner\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=c\n\n--c\n" + hidden + "--c--\n"
	encoded := func(encoding, body string) string {
		return mixed("Content-Transfer-Encoding: " + encoding + "\nContent-Disposition: attachment; filename=evil.exe\n\n" + body + "\n")
	}
	e := encode64(secret)
	tests := []struct{ name, message string }{
		{"boundary of RFC 2231", multi("multipart/mixed; boundary*=utf-8''b", hidden)},
		{"boundary in pieces", multi("multipart/mixed; boundary*0=\"\"; boundary*1=b", hidden)},
		{"first of two boundaries", multi("multipart/mixed; boundary=b; boundary=x", hidden)},
		{"last of two boundaries", multi("multipart/mixed; boundary=x; boundary=b", hidden)},
		{"boundary beside one of RFC 2231", multi("multipart/mixed; boundary=x; boundary*=utf-8''b", hidden)},
		{"boundary behind a comment", multi("multipart/mixed; (c) boundary=b", hidden)},
		{"boundary in a comment", multi("multipart/mixed; boundary=x (; boundary=b)", hidden)},
		{"boundary with a comment behind it", multi("multipart/mixed; boundary=b (c)", hidden)},
		{"boundary as a word", multi("multipart/mixed; boundary=\"=?utf-8?Q?b?=\"", hidden)},
		{"boundary with white space", multi("multipart/mixed; boundary=\" b \"", hidden)},
		{"boundary with its quotes", strings.ReplaceAll(multi("multipart/mixed; boundary=\"b\"", hidden), "--b", "--\"b\"")},
		{"boundary behind its quotes", multi("multipart/mixed; boundary=\"x\"b", hidden)},
		{"boundary with white space in front", strings.ReplaceAll(multi("multipart/mixed; boundary= b", hidden), "--b", "-- b")},
		{"boundary behind a comma", multi("multipart/mixed; boundary=x,b", hidden)},
		{"boundary in front of a comment that does not end", multi("multipart/mixed; boundary=b(x", hidden)},
		{"boundary that is another one", multi("multipart/mixed; boundary=x", hidden)},
		{"boundary with an open quote", multi("multipart/mixed; boundary=\"b", hidden)},
		{"boundary without a semicolon", multi("multipart/mixed boundary=b", hidden)},
		{"no boundary", multi("multipart/mixed", hidden)},
		{"empty boundary", multi("multipart/mixed; boundary=\"\"", hidden)},
		{"boundary that is only a beginning", strings.ReplaceAll(mixed(hidden), "\n--b\nContent-Disp", "\n--bcd\nContent-Disp")},
		{"delimiter with white space behind it", strings.ReplaceAll(mixed(hidden), "\n--b\n", "\n--b \t\n")},
		{"part behind the last delimiter", strings.Replace(mixed("x\n--b--\n--b\n"+hidden), "x", "A: b\n\nx", 1)},
		{"last delimiter with junk", strings.Replace(mixed("A: b\n\nx\n--b--x\n"+hidden), "\n--b--\nepi", "\n", 1)},
		{"delimiter in capitals", strings.ReplaceAll(multi("multipart/mixed; boundary=b", hidden), "\n--b\nContent-Disp", "\n--B\nContent-Disp")},
		{"no last delimiter", strings.ReplaceAll(mixed(hidden), "--b--\nepilogue\n", "")},
		{"two types", "Content-Type: text/plain\n" + mixed(hidden)},
		{"misspelt type", multi("multi part/mixed; boundary=b", hidden)},
		{"type without a subtype", multi("multipart; boundary=b", hidden)},
		{"type with junk", multi("multipart/mixed/x; boundary=b", hidden)},
		{"type in quotes", multi("\"multipart/mixed\"; boundary=b", hidden)},
		{"unknown multipart", multi("multipart/x-unknown; boundary=b", hidden)},
		{"text with a boundary", multi("text/plain; boundary=b", hidden)},
		{"comment in the type", multi("multipart(c)/mixed; boundary=b", hidden)},
		{"type of the message in front of a colon", strings.Replace(mixed(hidden), "Content-Type:", "Content-Type :", 1)},
		{"part behind empty lines", mixed("\n\n" + hidden)},
		{"part behind an empty line and another field", mixed("\nA: b\n c: d\n" + hidden)},
		{"part outside of the delimiters, behind another field", strings.Replace(mixed("x\n--b--\n\nA: b\n c: d\n"+hidden), "x", "A: b\n\nx", 1)},
		{"delimiter that must be guessed, with another field behind it", "Content-Type: multipart/mixed\n\n--x\nA: b\n\ny\n--b\nA: b\n" + hidden + "--b--\n"},
		{"digest", multi("multipart/digest; boundary=b", "\n"+inner)},
		{"attached message", mixed("Content-Type: message/rfc822\n\n" + inner)},
		{"attached message in base64", mixed("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + encode64(inner) + "\n")},
		{"attached message in quoted-printable", mixed("Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n" + strings.ReplaceAll(inner, "=", "=3D"))},
		{"attached message of another type", mixed("Content-Type: message/x-mail\n\n" + inner)},
		{"eml as data", mixed("Content-Type: application/octet-stream; name=a.eml\n\n" + inner)},
		{"eml as data in base64", mixed("Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + encode64(inner) + "\n")},
		{"eml as text", mixed("Content-Type: text/plain; name=a.eml\nContent-Transfer-Encoding: base64\n\n" + encode64(inner) + "\n")},
		{"multipart in base64", "Content-Transfer-Encoding: base64\nContent-Type: multipart/mixed; boundary=c\n\n" +
			encode64("--c\n"+hidden+"--c--\n") + "\n"},
		{"multipart in the second of two encodings", "Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: quoted-printable\n" +
			"Content-Type: multipart/mixed; boundary=c\n\n" + strings.NewReplacer("=", "=3D", "e", "=65").Replace("--c\n"+hidden+"--c--\n")},
		{"base64", encoded("base64", e)},
		{"base64 in capitals with white space", encoded(" BASE64 ", e)},
		{"base64 with a comment", encoded("base64 (really)", e)},
		{"base64 in quotes", encoded(`"base64"`, e)},
		{"base64 and more", encoded("base64, 8bit", e)},
		{"base64 abbreviated", encoded("b64", e)},
		{"base64 misspelt", encoded("base-64", e)},
		{"base64 of two fields, first", encoded("base64\nContent-Transfer-Encoding: 7bit", e)},
		{"base64 of two fields, last", encoded("7bit\nContent-Transfer-Encoding: base64", e)},
		{"padding in the middle", encoded("base64", encode64(secret[:10])+"\n"+encode64(secret[10:]))},
		{"padding to be ignored", encoded("base64", e[:9]+"="+e[9:])},
		{"junk in base64", encoded("base64", "*"+e[:7]+"!\n\n "+e[7:20]+"\n\n"+e[20:])},
		{"base64 without padding", encoded("base64", strings.TrimRight(encode64(secret+"x"), "="))},
		{"base64 with more behind it", encoded("base64", e+"\n--\nA footer of a mailing list.")},
		{"quoted-printable", encoded("quoted-printable", strings.ReplaceAll(secret, "e", "=65"))},
		{"quoted-printable with broken escapes", encoded("quoted-printable", "=zz="+strings.ReplaceAll(secret, "n", "=6e")+"=")},
		{"quoted-printable with a broken escape inside", encoded("quoted-printable", secret[:9]+"="+secret[9:])},
		{"quoted-printable with white space behind a break", encoded("qp", secret[:9]+"= \t\n"+secret[9:])},
		{"quoted-printable with much white space behind a break", encoded("quoted-printable", secret[:9]+"="+strings.Repeat(" ", 2000)+"\n"+secret[9:])},
		{"quoted-printable with dropped bytes behind an escape", encoded("quoted-printable", secret[:9]+"=@"+secret[9:])},
		{"quoted-printable with three dropped bytes", encoded("quoted-printable", secret[:9]+"=0x"+secret[9:])},
		{"uuencode as encoding", encoded("x-uuencode", "begin 644 a\n"+uuencoded(secret)+"\n`\nend")},
		{"uuencode without begin", encoded("uuencode", uuencoded(secret))},
		{"yEnc as encoding", encoded("x-yenc", "=ybegin line=128 size=41 name=a\n"+yencoded(secret)+"\n=yend size=41")},
		{"BinHex as encoding", encoded("mac-binhex40", binhexed("a", secret))},
		{"gzip64", encoded("x-gzip64", encode64(gzipped(secret)))},
		{"uuencoded in the preamble", strings.Replace(mixed("\nx\n"), "preamble", "begin 644 evil.exe\n"+uuencoded(secret)+"\nend", 1)},
		{"uuencoded in the epilogue", strings.Replace(mixed("\nx\n"), "epilogue", "begin 644 evil.exe\n"+uuencoded(secret)+"\nend", 1)},
		{"header that ends early", mixed("Content-Type: text/plain\nno field\n" + hidden)},
		{"part in the preamble", strings.Replace(mixed("A: b\n\nx\n"), "preamble", hidden, 1)},
		{"part in the epilogue", strings.Replace(mixed("A: b\n\nx\n"), "epilogue", hidden, 1)},
		{"encoding behind the header", mixed("Content-Disposition: attachment; filename=evil.exe\n\nContent-Transfer-Encoding: base64\n" + e + "\n")},
		{"encoding between lines behind the header", mixed("Content-Disposition: attachment; filename=evil.exe\n\nx\n Content-Transfer-Encoding: base64\ny!\n" + e + "\n")},
		{"encoding with a comment in its name", mixed("Content-Disposition: attachment; filename=evil.exe\nContent-Transfe(r-Encoding: base64\n\n" + e + "\n")},
		{"encoding with a comment around the colon", mixed("Content-Disposition: attachment; filename=evil.exe\nContent-Transfer-Encoding(: )base64\n\n" + e + "\n")},
		{"line that is no field in front of the body", mixed("Content-Disposition: attachment; filename=evil.exe\nContent-Transfer-Encoding: base64\nc\n" + e + "\n")},
		{"line of white space, and a field in front of the body", mixed("Content-Disposition: attachment; filename=evil.exe\nContent-Transfer-Encoding: base64\n \nXY: bc1\n" + e + "\n")},
		{"header that begins late", mixed("\n\n" + hidden)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := walk(t, tt.message)
			if !slices.ContainsFunc(f.contents, func(c string) bool { return strings.Contains(c, secret) }) {
				t.Errorf("%s\ncontents %q", tt.message, f.contents)
			}
			if !slices.Contains(f.names, evil) && !strings.Contains(tt.name, "message") && !strings.Contains(tt.name, "text") {
				t.Errorf("%s\nnames %q", tt.message, f.names)
			}
		})
	}
}

// TestQuotedPrintableWithWhatDoesNotBelong has a file without white space in quoted-printable that has such.
func TestQuotedPrintableWithWhatDoesNotBelong(t *testing.T) {
	const file = "X5O-nobody-was-meant-to-see-this"
	for name, text := range map[string]string{
		"white space":       " " + file[:5] + "\t" + file[5:] + " ",
		"line ends":         file[:5] + "\n" + file[5:9] + "\n\n" + file[9:],
		"escape in two":     file[:5] + "=6\nf" + file[6:],
		"control bytes":     file[:5] + "\x12" + file[5:],
		"8-bit bytes":       file[:5] + "\xaa" + file[5:],
		"broken and blanks": file[:5] + "= =" + file[5:9] + "= =" + file[9:],
	} {
		f := walk(t, mixed("Content-Type: application/octet-stream\nContent-Transfer-Encoding: quoted-printable\n\n"+text+"\n"))
		if !slices.ContainsFunc(f.contents, func(c string) bool { return strings.Contains(c, file) }) {
			t.Errorf("%s: contents %q", name, f.contents)
		}
	}
}

// TestWorkIsLinear doubles what is costly and looks at the work, which must not grow by more than that.
func TestWorkIsLinear(t *testing.T) {
	pieces := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "; name*%d*=%%41", i)
		}
		return b.String()
	}
	tests := []struct {
		name string
		make func(n int) string
	}{
		{"fields", func(n int) string { return strings.Repeat("Content-Type: a/b; name=c\n", n) }},
		{"the same piece", func(n int) string { return part("Content-Type: x/y" + strings.Repeat("; name*0=aaaaaaaaaa", n)) }},
		{"pieces", func(n int) string { return part("Content-Type: x/y" + pieces(n)) }},
		{"parameters without semicolons", func(n int) string { return part("Content-Type: x/y" + strings.Repeat(" name=a", n)) }},
		{"comments", func(n int) string { return part("Content-Type: x/y; name=a" + strings.Repeat("(", n)) }},
		{"closed comments", func(n int) string { return part("Content-Type: x/y; name=a" + strings.Repeat("()", n)) }},
		{"nested comments", func(n int) string {
			return part("Content-Type: x/y; " + strings.Repeat("(", n) + strings.Repeat(")", n) + "name=a")
		}},
		{"quotes", func(n int) string { return part("Content-Type: x/y; name=" + strings.Repeat(`"a"`, n)) }},
		{"backslashes", func(n int) string { return part(`Content-Type: x/y; name="` + strings.Repeat(`\"`, n)) }},
		{"words", func(n int) string { return part(`Content-Type: x/y; name="` + strings.Repeat("=?utf-8?Q?a?= ", n)) }},
		{"beginnings of words", func(n int) string { return part(`Content-Type: x/y; name="` + strings.Repeat("=?", n)) }},
		{"percent", func(n int) string { return part("Content-Type: x/y; name=" + strings.Repeat("%25", n)) }},
		{"fields in folds", func(n int) string { return part("X: y\n" + strings.Repeat(" Content-Type: a/b; name=c\n", n) + "Y: z") }},
		{"lines like delimiters", func(n int) string { return mixed("A: b\n\n" + strings.Repeat("--bx\n", n)) }},
		{"hyphens", func(n int) string { return mixed("A: b\n\n" + strings.Repeat("--\n", n)) }},
		{"begin", func(n int) string { return "A: b\n\n" + strings.Repeat("begin 644 a\n", n) }},
		{"BinHex", func(n int) string {
			return "A: b\n\n" + strings.Repeat("(This file must be converted with BinHex\n", n)
		}},
		{"messages", func(n int) string {
			return mixed("A: b\n\nx\n" + strings.Repeat("--b\nContent-Type: application/octet-stream\n\nSubject: x\n\n", min(n, 900)))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cost := func(n int) int64 {
				w := &walker{lim: Limits{PartHeader: 64 << 20, Parts: 1000, Depth: 20}, work: 1 << 40, seen: map[key]bool{}, begun: map[place]bool{}, told: map[string]bool{}}
				message := []byte(tt.make(n))
				err := w.message(message)
				if err != nil && !IsLimit(err) {
					t.Fatal(err)
				}
				return 1<<40 - w.work + int64(len(message))
			}
			for n := 500; n < 8000; n *= 2 {
				if one, two := cost(n), cost(2*n); two > 3*one {
					t.Errorf("%d cost %d, twice as many %d", n, one, two)
				}
			}
		})
	}
}

// TestFieldsAreBounded: what the fields of one header, or those of all parts, may make readers do has an end.
func TestFieldsAreBounded(t *testing.T) {
	const word = "=?utf-8?B?YQ==?= "
	pieces := func(n int) string { return part("Content-Type: x/y" + strings.Repeat("; name*0=a", n)) }
	parts := func(field string) string { return mixed(strings.Repeat("Content-Type: x/y"+field+"\n\n--b\n", 200)) }
	for _, tt := range []struct {
		name, message string
		want          error
	}{
		{"a thousand parameters", pieces(1000), nil},
		{"a field as large as Postfix lets pass", pieces(10_000), nil},
		{"a field that is larger", pieces(30_000), ErrHeader},
		{"several fields", part(strings.Repeat("Content-Type: x/y; name="+strings.Repeat("a", 1000)+"\n", 300)), ErrHeader},
		{"a field inside another", "X: y\n Content-Type: a/b; x=" + strings.Repeat("x", 300<<10) + "\n\nx\n", ErrHeader},
		{"fields inside another", "X: y" + strings.Repeat("\n Content-Type: a/b; x="+strings.Repeat("x", 1000), 300) + "\n\nx\n", ErrHeader},
		{"fields behind an empty line", mixed("\n" + strings.Repeat("Content-Type: a/b; x="+strings.Repeat("x", 1000)+"\n", 300) + "\nx\n"), ErrHeader},
		{"a field in a text", mixed("Content-Type: a/b\nContent-Type: c/d\n\nx\nContent-Type: a/b" + strings.Repeat("; name*0=a", 30_000) + "\n"), ErrHeader},
		{"parameters of all parts", parts(strings.Repeat("; name=a", 1000)), ErrWork},
		{"words of all parts", parts("; name=\"" + strings.Repeat(word, 5000) + "\""), ErrWork},
	} {
		if _, err := Walk([]byte(tt.message), Limits{}, Viewer{}); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestWRK_21_BoundsOfReadingAreTold hides a name or a content where a bound is reached: the message exceeds a limit, or
// readers are said to differ, if it is not found all the same.
func TestWRK_21_BoundsOfReadingAreTold(t *testing.T) {
	const name = "Content-Disposition: attachment; filename=evil.exe\n"
	hidden := name + "Content-Transfer-Encoding: base64\n\n" + encode64(secret) + "\n"
	pad := strings.Repeat("x", 300<<10)
	fields := strings.Repeat("X-Pad: "+pad[:60<<10]+"\n", 6)
	lines := strings.Repeat(strings.Repeat("x", 70)+"\n", 5000)
	types := strings.Repeat("Content-Type: a/b\n", maxFields+1)
	long := strings.Repeat("y", 300)
	octets := "Content-Type: application/octet-stream\n"
	inner := "X-Pad: " + strings.Repeat("x", 8<<10) + "\nSubject: inner\nContent-Type: multipart/mixed; boundary=c\n\n--c\n" + hidden + "--c--\n"
	for _, tt := range []struct{ name, message string }{
		{"large header behind a line of white space", mixed(octets + " \n" + fields + hidden)},
		{"large header behind a line that is none", mixed(octets + "nonsense\n" + fields + hidden)},
		{"many lines that are no fields", mixed(lines + hidden)},
		{"too many fields behind an empty line", mixed("\n" + name + types + "\nx\n")},
		{"too large a header behind an empty line", mixed("\n" + name + "X-Pad: " + pad + "\n\nx\n")},
		{"field behind very many empty lines", mixed(strings.Repeat("\n", 300<<10) + hidden)},
		{"large field in a fold", part("X-A: b\n Content-Type: a/b; x=" + pad + "; name=evil.exe")},
		{"field in a fold with long folds", part("X-A: b\n Content-Disposition: attachment;\n x=" + pad[:8<<10] + ";\n filename=evil.exe")},
		{"field in a fold behind many fields", part(strings.Repeat("Content-Type: a/b\n", 40) + "X-A: b\n " + name + "X-B: c")},
		{"field with much white space in a fold", part("X-A: b\n Content-Disposition:" + strings.Repeat(" ", 300) + "attachment; filename=evil.exe")},
		{"field with much white space in its name", part("Content-Disposition" + strings.Repeat(" ", 100) + ": attachment; filename=evil.exe")},
		{"large fields in front of and behind an empty line", mixed("\nContent-Type: a/b; x=" + pad[:200<<10] + "\n" + name + "Content-Type: a/b; x=" + pad[:200<<10] + "\n\nx\n")},
		{"large field in a text", "Content-Type: text/plain\nContent-Type: text/html\n\nhello\nContent-Type: a/b" + strings.Repeat("; name*0=a", 30_000) + "; name=evil.exe\n"},
		{"message in a file behind a long field", mixed("Content-Type: application/x; name=a.eml\n\n" + inner)},
		{"message in a file of no type behind a long field", mixed(octets + "\n" + inner)},
		{"message in a file behind very many fields", mixed(octets + "\n" + strings.Repeat(fields, 60) + inner)},
		{"delimiter that is long", strings.ReplaceAll(multi("multipart/mixed; boundary=x", hidden), "--b", "--"+long)},
		{"boundary that is long", multi("multipart/mixed; boundary=\""+long+"\"b", "A: b\n\nx\n--"+long+"\n\nx\n--b\n"+name+"\nx\n")},
		{"boundary behind many commas", multi("multipart/mixed; boundary=x,y,z,b,c", "A: b\n\nx\n--x\n\nx\n--b\n"+name+"\nx\n")},
		{"uuencoded file with a long name", "Subject: x\n\nbegin 644 " + strings.Repeat("x", 2<<20) + "=?utf-8?Q?evil=2Eexe?=\n" + uuencoded(secret) + "\nend\n"},
		{"name that is encoded many times", part("Content-Disposition: attachment; filename=evil%" + strings.Repeat("25", 40) + "2Eexe")},
		{"word with a broken shift", part("Content-Disposition: attachment; filename=\"=?utf-7?Q?a+A-evil+AC4-exe?=\"")},
		{"BinHex far behind its first line", "Subject: x\n\n" + strings.Replace(binhexed(evil, secret), "\n:", strings.Repeat("\n", 2000)+":", 1)},
		{"BinHex with long runs", "Subject: x\n\n" + packedBinHex("a", strings.Repeat("x\x90\xff", 10<<10)+secret, 10<<10*255+len(secret))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var names []string
			differ, err := Walk([]byte(tt.message), Limits{}, Viewer{Name: func(_ *Part, n string) error { names = append(names, n); return nil }})
			if err == nil && len(differ) == 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, evil) }) {
				t.Errorf("nothing is told, and %d names are found", len(names))
			}
		})
	}
}

// TestFilesThatAreNoMessage has files of no type with colons in them: readers do not differ about them.
func TestFilesThatAreNoMessage(t *testing.T) {
	for name, file := range map[string]string{
		"log":            strings.Repeat("12:30:01 something has happened: nothing\n", 20_000),
		"one long line":  "{\"a\":\"b\"" + strings.Repeat(",\"c d\":1", 1<<18) + "}",
		"list of values": strings.Repeat("key: value\n  and more\n", 50_000),
		"zeros":          strings.Repeat("\x00", 2<<20),
		"two long lines": "a:" + strings.Repeat("b", 5000) + "\n" + strings.Repeat("c", 1<<20),
	} {
		message := mixed("Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + encode64(file) + "\n")
		if f := walk(t, message); len(f.ambiguities) > 0 || !slices.Contains(f.contents, file) {
			t.Errorf("%s: %q", name, f.ambiguities)
		}
	}
}

// FuzzWalk sees that no message costs more than is allowed, and that what a careful writer encodes is found.
func FuzzWalk(f *testing.F) {
	f.Add([]byte(part("Content-Disposition: attachment; filename*0*=utf-8''evil%2; filename*1*=Eexe")))
	f.Add([]byte(mixed("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + encode64("Subject: x\n\nbegin 644 a\n") + "\n")))
	f.Add([]byte("Content-Type: multipart/mixed\n\n--b\n\n" + binhexed("a", "b")))
	f.Add([]byte("Content-Type : multipart/digest; boundary=\"b\n \n--b\r\n\r\nA: \x00\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		var bytes int64
		_, err := Walk(message, Limits{}, Viewer{Content: func(_ *Part, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			bytes += n
			return err
		}})
		if err != nil && !IsLimit(err) {
			t.Errorf("%q: %v", message, err)
		}
		if most := 8 * (workFactor*int64(len(message)) + workBase); bytes > most {
			t.Errorf("%d bytes of message gave %d bytes of content", len(message), bytes)
		}
		all := append(append([]byte{}, message...), "\n\n"...)
		_, _, _, _ = readBinHex(all)
	})
}

func readBinHex(b []byte) (name, content []byte, taken int, err error) {
	w := &walker{work: 1 << 40, told: map[string]bool{}}
	return w.binhex(b)
}

// FuzzDecode compares the decoders with those of the standard library where these accept a text.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("hello"), 2)
	f.Fuzz(func(t *testing.T, b []byte, width int) {
		width = 4 + width&63
		var lines strings.Builder
		e := base64.StdEncoding.EncodeToString(b)
		for i := 0; i < len(e); i += width {
			lines.WriteString(e[i:min(i+width, len(e))] + "\r\n")
		}
		if got, _ := decodeBase64([]byte(lines.String()), base64Restarts); !bytes.Equal(got, b) {
			t.Errorf("base64 of %q: %q", b, got)
		}
		one, err := io.ReadAll(io.LimitReader(&base64Reader{src: []byte(e)}, int64(len(b)+1)))
		if err != nil || !bytes.Equal(one, b) {
			t.Errorf("base64 of %q, read: %q, %v", b, one, err)
		}
		if len(b) > 45 {
			b = b[:45]
		}
		if got := decodeUU([]byte(uuencoded(string(b)))); !bytes.Equal(got, b) {
			t.Errorf("uuencode of %q: %q", b, got)
		}
		if got := decodeYEnc([]byte(yencoded(string(b)))); !bytes.Equal(got, b) {
			t.Errorf("yEnc of %q: %q", b, got)
		}
		if name, got, _, _ := readBinHex([]byte(binhexed("n", string(b)))); string(name) != "n" || !bytes.Equal(got, b) {
			t.Errorf("BinHex of %q: %q, %q", b, name, got)
		}
	})
}

// BenchmarkWalk reads a message with an attachment of 1 MiB, as ordinary mail is.
func BenchmarkWalk(b *testing.B) {
	var lines strings.Builder
	for e := encode64(strings.Repeat("0123456789abcdef", 1<<16)); e != ""; {
		n := min(76, len(e))
		lines.WriteString(e[:n] + "\n")
		e = e[n:]
	}
	message := []byte(mixed("Content-Disposition: attachment; filename=a.pdf\nContent-Transfer-Encoding: base64\n\n" + lines.String()))
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Walk(message, Limits{}, Viewer{Content: func(_ *Part, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}); err != nil {
			b.Fatal(err)
		}
	}
}
