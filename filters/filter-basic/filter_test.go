package main

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// settings are the defaults changed by flags.
func settings(t testing.TB, flags ...string) *Settings {
	t.Helper()
	var s Settings
	if _, err := s.parse(append([]string{"--config", "/dev/null"}, flags...)); err != nil {
		t.Fatal(err)
	}
	return &s
}

// examine judges a message with LF line ends.
func examine(t testing.TB, s *Settings, message string) error {
	t.Helper()
	_, err := examineAll(t, s, message)
	return err
}

// examineAll returns the ways in which readers may differ too.
func examineAll(t testing.TB, s *Settings, message string) ([]string, error) {
	t.Helper()
	ambiguities, findings, err := examineFile(t, s, message)
	if err == nil && len(findings) > 0 {
		err = findings[len(findings)-1]
	}
	return ambiguities, err
}

func examineFile(t testing.TB, s *Settings, message string) ([]string, []*finding, error) {
	t.Helper()
	return s.examine([]byte(message))
}

// isFinding tells whether err is a finding whose text has want in it; "" wants a clean message.
func isFinding(err error, want string) bool {
	var f *finding
	if want == "" {
		return err == nil
	}
	return errors.As(err, &f) && strings.Contains(f.text, want)
}

// attachment is a message with one attached file, described by fields.
func attachment(fields ...string) string {
	return "From: a@b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhello\n--b\n" +
		strings.Join(fields, "\n") + "\n\ncontent\n--b--\n"
}

func TestNames(t *testing.T) {
	const exe = "not allowed"
	disposition := func(p string) string { return attachment("Content-Disposition: attachment; " + p) }
	tests := []struct{ name, message, want string }{
		{"plain text", "Subject: x\n\nhello\n", ""},
		{"empty", "\n", ""},
		{"harmless", disposition(`filename="report.pdf"`), ""},
		{"double extension", disposition(`filename="invoice.pdf.exe"`), "invoice.pdf.exe"},
		{"upper case", disposition(`filename="SETUP.EXE"`), exe},
		{"extension in the middle", disposition(`filename="setup.exe.txt"`), ""},
		{"only in the type", attachment(`Content-Type: application/x; name="a.scr"`), exe},
		{"bare value", disposition(`filename=my nice file.exe`), exe},
		{"spaces around", disposition(`filename = " a.exe "`), exe},
		{"dots and spaces behind", disposition(`filename="a.exe . ."`), exe},
		{"directories", disposition(`filename="C:\\a.txt\\b.exe"`), exe},
		{"directory only", disposition(`filename="a.exe/b.txt"`), ""},
		{"stream", disposition(`filename="a.exe::$DATA"`), exe},
		{"colon before", disposition(`filename="Re: a.exe"`), exe},
		{"open quote", disposition(`filename="a.exe`), exe},
		{"quotes in the middle", disposition(`filename=a".ex"e`), exe},
		{"two names, second bad", disposition(`filename="a.txt"; filename="a.exe"`), exe},
		{"two names, first bad", disposition(`filename="a.exe"; filename="a.txt"`), exe},
		{"two fields", attachment("Content-Disposition: attachment; filename=a.txt", "Content-Disposition: attachment; filename=a.exe"), exe},
		{"folded", attachment("Content-Disposition: attachment;", " filename=\"a.", " exe\""), exe},
		{"folded field", attachment("Content-Disposition: attachment;", "\tfilename=\"a.exe\""), exe},
		{"comment", disposition(`filename=a.exe(nothing to see)`), exe},
		{"RFC 2231", disposition(`filename*=utf-8'en'invoice%2epdf%2Eexe`), exe},
		{"RFC 2231 without charset", disposition(`filename*=a%2eexe`), exe},
		{"RFC 2231 in another charset", disposition(`filename*=koi8-r''%C1%2Eexe`), exe},
		{"RFC 2231 in pieces", disposition(`filename*0="invoice.p"; filename*1="df.e"; filename*2="xe"`), exe},
		{"RFC 2231 in pieces, out of order", disposition(`filename*1*=%65xe; filename*0*=utf-8''a.`), exe},
		{"RFC 2047", disposition(`filename="=?utf-8?B?` + base64.StdEncoding.EncodeToString([]byte("rechnung.exe")) + `?="`), exe},
		{"RFC 2047 Q", disposition(`filename="=?iso-8859-1?Q?r=E9sum=E9=2Eexe?="`), exe},
		{"RFC 2047 unknown charset", disposition(`filename="=?x-none?Q?a=2Eexe?="`), exe},
		{"RFC 2047 in two words", disposition(`filename="=?utf-8?Q?a.e?= =?utf-8?Q?xe?="`), exe},
		{"percent escapes", disposition(`filename="a%2Eexe"`), exe},
		{"right to left", disposition("filename=\"a\u202efdp.exe\""), exe},
		{"Mongolian vowel separator behind", disposition("filename=\"a.exe\u180e\""), exe},
		{"variation selector", disposition("filename=\"a.e\ufe0fxe\""), exe},
		{"tag characters", disposition("filename=\"a.exe\U000e0061\""), exe},
		{"no-break space behind", disposition("filename=\"a.exe\u00a0\""), exe},
		{"remote desktop", disposition("filename=a.rdp"), exe},
		{"settings content", disposition("filename=a.SettingContent-ms"), exe},
		{"library", disposition("filename=a.library-ms"), exe},
		{"saved search", disposition("filename=a.search-ms"), exe},
		{"package", disposition("filename=a.msix"), exe},
		{"package installer", disposition("filename=a.appinstaller"), exe},
		{"comment in front of the parameter", disposition("(c) filename=\"a.exe\""), exe},
		{"missing semicolon", attachment("Content-Disposition: attachment filename=\"a.exe\""), exe},
		{"digest", "Content-Type: multipart/digest; boundary=b\n\n--b\n\nContent-Type: x/y; name=a.exe\n\nMZ\n--b--\n", exe},
		{"zero width", disposition("filename=\"a.e\u200bxe\""), exe},
		{"full width", disposition("filename=\"a．ｅｘｅ\""), exe},
		{"NUL", disposition(`filename="a.exe%00.txt"`), exe},
		{"NUL inside", disposition(`filename="a.txt%00.exe"`), exe},
		{"single quotes", disposition(`filename='a.exe'`), exe},
		{"class identifier", disposition(`filename="a.txt.{00020C01-0000-0000-C000-000000000046}"`), exe},
		{"message is the attachment", "MIME-Version: 1.0\nContent-Type: application/x; name=a.exe\n\nMZ\n", exe},
		{"without MIME-Version", "Content-Type: application/x; name=a.exe\n\nMZ\n", exe},
		{"bad type", attachment("Content-Type: application; name=a.exe"), exe},
		{"uuencoded", "Subject: x\n\nhello\nbegin 644 a.exe\n#0V%T\n`\nend\n", exe},
		{"uuencoded first line", "Subject: x\n\nbegin 0755 dir/my a.exe\nend\n", exe},
		{"talk of begin", "Subject: x\n\nthey begin 644 a.exe\nbegin now a.exe\n", ""},
		{"in a quoted header", "Subject: x\n\nContent-Disposition: attachment; filename=a.exe\n", ""},
		{"fragment", attachment("Content-Type: message/partial; id=x; number=1; total=2"), "fragmented"},
		{"external", attachment("Content-Type: message/external-body; access-type=URL"), "fragmented"},
	}
	s := settings(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := examine(t, s, tt.message); !isFinding(err, tt.want) {
				t.Errorf("%s\nfound %v, want %q", tt.message, err, tt.want)
			}
		})
	}
}

func TestStructure(t *testing.T) {
	const exe = "not allowed"
	bad := "Content-Disposition: attachment; filename=a.exe\n\nMZ\n"
	attached := "Content-Type: message/rfc822\n\nSubject: inner\nContent-Type: multipart/mixed; boundary=c\n\n--c\n" + bad + "--c--\n"
	multi := func(boundary, body string) string {
		return "Content-Type: multipart/mixed; boundary=" + boundary + "\n\n" + body
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(attachment("Content-Disposition: x; filename=a.exe")))
	zipped := base64.StdEncoding.EncodeToString(makeZip(t, "dir/a.exe"))
	tests := []struct{ name, message, want string }{
		{"nested", multi("b", "--b\n"+multi("c", "--c\n"+bad+"--c--\n")+"--b--\n"), exe},
		{"attached message", multi("b", "--b\n"+attached+"--b--\n"), exe},
		{"encoded attached message", multi("b", "--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"+encoded+"\n--b--\n"), exe},
		{"preamble and epilogue", multi("b", "hello\n--bb\n--b\nA: b\n\nx\n--b--\nepilogue\n"), ""},
		{"part behind the end", multi("b", "--b\nA: b\n\nx\n--b--\n--b\n"+bad), exe},
		{"part in the epilogue", multi("b", "--b\nA: b\n\nx\n--b--\n"+bad), exe},
		{"part in the preamble", multi("b", bad+"--b\nA: b\n\nx\n--b--\n"), exe},
		{"no end", multi("b", "--b\nA: b\n\nx\n--b\n"+bad), exe},
		{"no end, harmless", multi("b", "--b\nA: b\n\nx\n"), ""},
		{"no boundary", "Content-Type: multipart/mixed\n\n--b\n" + bad + "--b--\n", exe},
		{"two boundaries", "Content-Type: multipart/mixed; boundary=x; boundary=b\n\n--b\n" + bad + "--b--\n", exe},
		{"two types", "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + bad + "--b--\n", exe},
		{"bad line in a part's header", multi("b", "--b\nno colon\n--b\n"+bad+"--b--\n"), exe},
		{"encoded multipart", "Content-Transfer-Encoding: base64\n" + multi("b", "--b\n"+bad+"--b--\n"), exe},
		{"multipart in part with unknown encoding", multi("b", "--b\nContent-Transfer-Encoding: x-none\n\nx\n--b\n"+bad+"--b--\n"), exe},
		{"archive", multi("b", "--b\nContent-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n"+zipped+"\n--b--\n"), exe},
		{"archive behind broken part", multi("b", "--b\nno colon\n--b\nContent-Transfer-Encoding: base64\n\n"+zipped+"\n--b--\n"), exe},
		{"archive behind unknown encoding", multi("b", "--b\nContent-Transfer-Encoding: x\n\nx\n--b\nContent-Transfer-Encoding: base64\n\n"+zipped+"\n--b--\n"), exe},
		{"rubbish in base64", multi("b", "--b\nContent-Transfer-Encoding: base64\n\n*"+zipped[:50]+"!\n\n "+zipped[50:]+"\n--b--\n"), exe},
		{"uuencoded archive", "Subject: x\n\nbegin 644 a.zip\n" + uuencode(makeZip(t, "a.exe")) + "`\nend\n", exe},
		{"archive in an archive", zipPart(nested(t, zip.Deflate, makeZip(t, "a.exe"))), exe},
		{"stored archive in an archive", zipPart(nested(t, zip.Store, makeZip(t, "a.exe"))), exe},
		{"archive in an archive in an archive", zipPart(nested(t, zip.Deflate, nested(t, zip.Deflate, makeZip(t, "a.exe")))), exe},
		{"archives in archives, too deep", zipPart(func() []byte {
			z := makeZip(t, "a.txt")
			for range 10 {
				z = nested(t, zip.Deflate, z)
			}
			return z
		}()), "nested too deep"},
		{"archive behind data in an archive", zipPart(nested(t, zip.Deflate, append([]byte(strings.Repeat("MZ", 500)), makeZip(t, "a.exe")...))), exe},
		{"harmless archive in an archive", zipPart(nested(t, zip.Deflate, makeZip(t, "a.txt"))), ""},
		{"entry with a long name", zipPart(makeZip(t, strings.Repeat("a/", 3000)+"a.exe")), exe},
		{"entry with the longest name", zipPart(makeZip(t, strings.Repeat("a", 65531)+".exe")), exe},
		{"long name across the window", zipPart(append(make([]byte, windowSize-10), makeZip(t, strings.Repeat("a/", 3000)+"a.exe")...)), exe},
		{"Unicode path", zipPart(unicodePath(t, "a.txt", "a.exe")), exe},
		{"archive behind a program", zipPart(append([]byte("MZ"+strings.Repeat("x", 3000)), nested(t, zip.Deflate, makeZip(t, "a.exe"))...)), exe},
		{"archive with harmless names", multi("b", "--b\nContent-Transfer-Encoding: base64\n\n"+
			base64.StdEncoding.EncodeToString(makeZip(t, "a.txt", "exe"))+"\n--b--\n"), ""},
	}
	s := settings(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := examine(t, s, tt.message); !isFinding(err, tt.want) {
				t.Errorf("%.2000s\nfound %v, want %q", tt.message, err, tt.want)
			}
		})
	}
}

// zipPart is a message with an archive.
func zipPart(z []byte) string {
	return "Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(z) + "\n"
}

// nested is an archive with an archive in it.
func nested(t testing.TB, method uint16, inner []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "inner", Method: method})
	if err == nil {
		_, err = w.Write(inner)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unicodePath is an archive with a file that has another name in its Unicode path field.
func unicodePath(t testing.TB, name, other string) []byte {
	t.Helper()
	extra := append([]byte{0x75, 0x70, byte(5 + len(other)), 0, 1, 0, 0, 0, 0}, other...)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := z.CreateHeader(&zip.FileHeader{Name: name, Extra: extra}); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// uuencode encodes b as the body of a uuencoded file.
func uuencode(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		line := b[:min(45, len(b))]
		b = b[len(line):]
		out.WriteByte(byte(len(line)) + ' ')
		for len(line) > 0 {
			var g [3]byte
			line = line[copy(g[:], line):]
			for _, v := range []byte{g[0] >> 2, g[0]&3<<4 | g[1]>>4, g[1]&15<<2 | g[2]>>6, g[2] & 63} {
				out.WriteByte(v + ' ')
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func makeZip(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, n := range names {
		w, err := z.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("content"), 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSignatures(t *testing.T) {
	encode := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	part := func(encoding, body string) string {
		return "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/x\nContent-Transfer-Encoding: " + encoding + "\n\n" + body + "\n--b--\n"
	}
	far := strings.Repeat("x", windowSize-20)
	tests := []struct{ name, message, want string }{
		{"GTUBE", "Subject: x\n\n" + string(gtube) + "\n", "GTUBE"},
		{"GTUBE in the subject", "Subject: " + string(gtube) + "\n\nx\n", "GTUBE"},
		{"GTUBE in base64", part("base64", encode(gtube)), "GTUBE"},
		{"GTUBE quoted", part("quoted-printable", strings.Replace(string(gtube), "GTUBE", "G=\nTU=42E", 1)), "GTUBE"},
		{"GTUBE across the window", "Subject: x\n\n" + far + string(gtube) + "\n", "GTUBE"},
		{"GTUBE without a structure", "Content-Type: multipart/mixed\n\n" + string(gtube), "GTUBE"},
		{"EICAR", part("base64", encode(eicar)), "EICAR"},
		{"EICAR raw", "Subject: x\n\n" + string(eicar), "EICAR"},
		{"EICAR far behind", part("base64", encode([]byte(far+string(eicar)))), "EICAR"},
		{"half of it", "Subject: x\n\n" + string(gtube[:40]), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := examine(t, settings(t), tt.message); !isFinding(err, tt.want) {
				t.Errorf("found %v, want %q", err, tt.want)
			}
			if err := examine(t, settings(t, "--test-signatures=no"), tt.message); !isFinding(err, "") {
				t.Errorf("switched off, and yet found %v", err)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	exe, sh := attachment("Content-Disposition: x; filename=a.exe"), attachment("Content-Disposition: x; filename=a.foo")
	archive := "Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(makeZip(t, "a.exe")) + "\n"
	partial := "Content-Type: message/partial; id=x\n\nx\n"
	tests := []struct {
		flags   []string
		message string
		found   bool
	}{
		{nil, exe, true}, {nil, sh, false},
		{[]string{"--block-extensions", ".FOO, bar"}, exe, false},
		{[]string{"--block-extensions", ".FOO, bar"}, sh, true},
		{[]string{"--block-extensions", "none"}, exe, false},
		{[]string{"--allow-extensions", "exe"}, exe, false},
		{[]string{"--block-names", "*.f?o"}, sh, true},
		{[]string{"--block-names", "b*", "--block-names", "A.FOO"}, sh, true},
		{nil, archive, true}, {[]string{"--inspect-archives=no"}, archive, false},
		{nil, partial, true}, {[]string{"--block-fragments=no"}, partial, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.flags), func(t *testing.T) {
			err := examine(t, settings(t, tt.flags...), tt.message)
			if found := !isFinding(err, ""); found != tt.found {
				t.Errorf("found %v, want %v: %v", found, tt.found, err)
			}
		})
	}
	for _, bad := range [][]string{{"--block-extensions", "a/b"}, {"--allow-extensions", "*"}, {"--block-names", "["}, {"--max-depth", "0"},
		{"--max-depth", "100000"}, {"--max-parts", "0"}, {"--header", "a b"}, {"--mark-header", ""}, {"--max-part-header", "1"}, {"--on-blocked", "shout"}, {"--nonsense"}} {
		var s Settings
		if _, err := s.parse(append([]string{"--config", "/dev/null"}, bad...)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestBounds has messages that are made to cost memory or time.
func TestBounds(t *testing.T) {
	nested := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
		}
		b.WriteString("A: b\n\nx\n")
		return b.String()
	}
	messages := func(n int) string { return strings.Repeat("Content-Type: message/rfc822\n\n", n) + "A: b\n\nx\n" }
	tests := []struct{ name, message, want string }{
		{"multipart 1000 deep", nested(1000), "nested too deep"},
		{"multipart as deep as may be", nested(20), ""},
		{"messages 1000 deep", messages(1000), "nested too deep"},
		{"messages as deep as may be", messages(20), ""},
		{"100000 parts", "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\nA: b\n\nx\n", 100000) + "--b--\n", "too many parts"},
		{"part header of 4 MiB", "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: " + strings.Repeat("x", 4<<20) + "\n\nx\n--b--\n", "too large"},
		{"part header of many lines", "Content-Type: multipart/mixed; boundary=b\n\n--b\n" + strings.Repeat("A: b\n", 1<<20) + "\nx\n--b--\n", "too large"},
		{"100000 parameters", attachment("Content-Type: text/plain" + strings.Repeat("; name=a", 20000)), ""},
		{"50000 pieces", attachment("Content-Type: text/plain" + strings.Repeat("; name*0=aaaaaaaaaa", 12000)), ""},
		{"long name", attachment("Content-Disposition: x; filename=" + strings.Repeat("a", 100000) + ".exe"), "..."},
		{"4 MiB of body", "A: b\n\n" + strings.Repeat(strings.Repeat("x", 75)+"\n", 4<<20/76), ""},
		{"4 MiB without a line end", "A: b\n\n" + strings.Repeat("x", 4<<20), ""},
		{"4 MiB broken", "Content-Type: multipart/mixed\n\n" + strings.Repeat("A", 4<<20), ""},
		{"4 MiB of fold", "Content-Type: multipart/mixed\n\nContent-Type: x\n" + strings.Repeat(" x\n", 1<<20), ""},
	}
	s := settings(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			message := []byte(tt.message)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, findings, err := s.examine(message)
			if len(findings) > 0 {
				err = findings[0]
			}
			if !isFinding(err, tt.want) {
				t.Errorf("found %v, want %q", err, tt.want)
			}
			runtime.ReadMemStats(&after)
			// All that was ever allocated, so the peak is much lower. A field costs about 500 bytes, whatever is in it.
			limit := uint64(16 << 20)
			if strings.Contains(tt.name, "many lines") {
				limit = 48 << 20
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > limit {
				t.Errorf("allocated %d MiB", used>>20)
			}
		})
	}
}

func FuzzExamine(f *testing.F) {
	f.Add(attachment("Content-Disposition: attachment; filename*0*=utf-8''a%2e; filename*1=exe"))
	f.Add("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nQTogYgoKeA==\n")
	f.Add("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nbegin 644 x\n--b--")
	f.Add(attachment("Content-Transfer-Encoding: base64") + string(makeZip(f, "a.exe")))
	s := settings(f)
	f.Fuzz(func(t *testing.T, message string) {
		err := examine(t, s, message)
		var found *finding
		if err != nil && !errors.As(err, &found) {
			t.Errorf("%q: %v", message, err)
		}
		if found != nil && strings.ContainsAny(found.text, "\r\n\x00\x1b") {
			t.Errorf("%q: text %q", message, found.text)
		}
	})
}

// FuzzName hides a blocked name behind the encodings of RFC 2231 and 2047; it must be found.
func FuzzName(f *testing.F) {
	f.Add("invoice.pdf")
	f.Add("a b;\"c\\")
	s := settings(f)
	f.Fuzz(func(t *testing.T, name string) {
		name = strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' || strings.ContainsRune(`:/\`, r) {
				return 'x'
			}
			return r
		}, name) + ".exe"
		escaped := ""
		for i := range len(name) {
			escaped += fmt.Sprintf("%%%02x", name[i])
		}
		half := len(escaped) / 6 * 3
		for _, field := range []string{
			"attachment; filename*=utf-8''" + escaped,
			"attachment; filename*0*=utf-8''" + escaped[:half] + "; filename*1*=" + escaped[half:],
			`attachment; filename="` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(name) + `"`,
			`attachment; filename="=?utf-8?B?` + base64.StdEncoding.EncodeToString([]byte(name)) + `?="`,
		} {
			if err := examine(t, s, attachment("Content-Disposition: "+field)); !isFinding(err, "not allowed") {
				t.Errorf("%s (%q) is not found: %v", field, name, err)
			}
		}
	})
}

func BenchmarkExamine(b *testing.B) {
	body := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	var lines strings.Builder
	for i := 0; i < len(body); i += 76 {
		lines.WriteString(body[i:min(i+76, len(body))] + "\n")
	}
	message := []byte(attachment("Content-Disposition: attachment; filename=a.pdf", "Content-Transfer-Encoding: base64", "", lines.String()))
	s := settings(b)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.examine(message); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAmbiguous has messages that mail readers read in different ways, in none of which something is blocked.
func TestAmbiguous(t *testing.T) {
	differ := "Content-Type: multipart/mixed; boundary=x; boundary=b\n\n--x\nA: b\n\nx\n--b\nA: b\n\nx\n--b--\n"
	for _, tt := range []struct{ policy, message, want string }{
		{"none", differ, ""}, {"reject", differ, "B554"}, {"tempfail", differ, "T451"}, {"mark", differ, "X-Filter-Warning mail%20readers"},
		{"mark", differ, "JMIME-Ambiguity-Results 1\n"},
		{"mark", differ, "NMIME-Ambiguity-Results 0 mx.example.org;%20mime=ambiguous%20policy.action=mark%0A%09reason=%22several%20boundaries%22"},
		{"reject", attachment("Content-Disposition: attachment; filename=a.txt"), ""},
		{"reject", attachment("Content-Disposition: attachment; filename=\"=?utf-8?Q?=C3=A4.txt?=\""), ""},
	} {
		got := scanResults(t, tt.message, "--on-ambiguous="+tt.policy, "--authserv-id=mx.example.org",
			"headers=Subject: x\nMime-ambiguity-results: mx.example.org; mime=none\n")
		if tt.want == "" && (strings.Contains(got, "B5") || strings.Contains(got, "Warning") || !strings.Contains(got, "JMIME-Ambiguity-Results 1\n")) || !strings.Contains(got, tt.want) {
			t.Errorf("%s: RESULTS %q, want %q", tt.policy, got, tt.want)
		}
	}
}

// TestExplain shows what the command explain says of messages.
func TestExplain(t *testing.T) {
	dir := t.TempDir()
	write := func(name, message string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(message), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	clean := write("clean.eml", attachment("Content-Disposition: attachment; filename=a.txt"))
	bad := write("bad.eml", "Content-Type: multipart/mixed; boundary=x; boundary=b\n\n--b\nContent-Type: a/b; name=\"a\x1b.exe\"\n\nx\n--x\nA: b\n\ny\n--b--\n")
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bad)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Go(t, "the writer of the pipe", func() error { return os.WriteFile(pipe, text, 0) })
	tests := []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{clean}, 0, []string{"part multipart/mixed\n", "  part text/plain\n", "name a.txt\n", "content of 7 bytes\n", "passes\n"}},
		{[]string{bad}, 1, []string{"name a?.exe: blocked\n", "several boundaries", "another boundary\n", "reject: attachment name not allowed: a?.exe\n"}},
		{[]string{"--on-blocked=mark", bad, clean}, 0, []string{"mark: attachment", "passes\n"}},
		{[]string{clean, filepath.Join(dir, "none")}, exitUnread, []string{"passes\n"}},
		{[]string{dir}, exitUnread, nil},
		{[]string{"--scan-command=/bin/true", clean}, 0, []string{"scanner: true=clean\n", "passes\n"}},
		{[]string{"--scan-command=/bin/false", clean}, 1, []string{"scanner: false=virus", "reject: message contains a virus"}},
		{[]string{"--scan-command=/bin/false", bad}, 1, []string{"reject: attachment name not allowed"}},
		{[]string{"--authenticate", clean}, 0, []string{"sender is not checked: no --client is given\n", "passes\n"}},
		{[]string{"--authenticate", "--dns-server=127.0.0.1:1", "--client=192.0.2.7", "--helo=x.test", "--sender=<a@b.test>", clean}, 0, []string{"sender: spf=temperror", "dmarc="}},
		{[]string{pipe}, 1, []string{"reject: attachment name not allowed: a?.exe\n"}},
	}
	for _, tt := range tests {
		s := &Settings{}
		args := append([]string{"--config", "/dev/null", "explain"}, tt.args...)
		if command, err := s.parse(args); err != nil || !strings.HasPrefix(command, "explain") {
			t.Fatalf("%q: command %q, %v", args, command, err)
		}
		var out, errs bytes.Buffer
		if status := s.explain(&out, &errs); status != tt.status || tt.args[0] == dir && !strings.Contains(errs.String(), dir+" is a directory") {
			t.Errorf("%q: exit status %d, want %d\n%s%s", args, status, tt.status, &out, &errs)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: no %q in\n%s", args, want, out.String())
			}
		}
	}
}
