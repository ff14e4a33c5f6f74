package main

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"

	"postern/filters/mime"
)

// large is an ordinary message of a text, a picture and an archive.
func large(t testing.TB) []byte {
	t.Helper()
	encoded := func(b []byte) string {
		var out strings.Builder
		text := base64.StdEncoding.EncodeToString(b)
		for i := 0; i < len(text); i += 76 {
			out.WriteString(text[i:min(i+76, len(text))] + "\n")
		}
		return out.String()
	}
	noise := make([]byte, 1<<20)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	return []byte("From: a@example.org\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\n" +
		strings.Repeat("A line of text, as people write them, of usual length.\n", 2000) +
		"--b\nContent-Type: image/jpeg; name=a.jpg\nContent-Transfer-Encoding: base64\n\n" + encoded(noise) +
		"--b\nContent-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n" + encoded(nested(t, zip.Deflate, noise)) + "--b--\n")
}

// BenchmarkOrdinary reads a large ordinary message: as the filter does, in all views but without looking at the
// contents, and in the one view of a library.
func BenchmarkOrdinary(b *testing.B) {
	message := large(b)
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	s := settings(b)
	run("filter", func() error { _, _, err := s.examine(message); return err })
	discard := func(_ *mime.Part, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	run("all-views", func() error { _, err := mime.Walk(message, mime.Limits{}, mime.Viewer{Content: discard}); return err })
	run("one-view", func() error {
		e, err := gomessage.Read(bytes.NewReader(message))
		if err != nil {
			return err
		}
		return e.Walk(func(_ []int, part *gomessage.Entity, err error) error {
			if err == nil && part.MultipartReader() == nil {
				_, err = io.Copy(io.Discard, part.Body)
			}
			return err
		})
	})
}

// worstMessages are messages of 10 MiB that make most work, each in its way.
func worstMessages(t testing.TB) map[string]string {
	const size = 10 << 20
	fill := func(head, piece string) string { return head + strings.Repeat(piece, (size-len(head))/len(piece)) }
	mixed := "Content-Type: multipart/mixed; boundary=b\n"
	zeros := append(makeTar(t, "a.txt"), make([]byte, 96<<20)...)
	return map[string]string{
		"text":                  fill("A: b\n\n", strings.Repeat("x", 75)+"\n"),
		"empty lines":           fill("A: b\n\n", "\n"),
		"boundaries":            fill(mixed+"\n", "--b\n"),
		"boundaries of another": fill(mixed+"Content-Type: multipart/mixed; boundary=c\n\n", "--c\n--b\n"),
		"parts":                 fill(mixed+"\n", "--b\nA: b\n\nx\n"),
		"broken multipart":      fill("Content-Type: multipart/mixed\n\n", "--b\nContent-Type: text/plain\n\n=?utf-8?B?YQ==?=\n"),
		"base64":                fill("Content-Transfer-Encoding: base64\n\n", strings.Repeat("QUJD", 19)+"\n"),
		"base64 with padding":   fill("Content-Transfer-Encoding: base64\n\n", "QQ==-_QQ=\n"),
		"base64 twice":          fill("Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: quoted-printable\n\n", "QQ==3D=20=\n"),
		"quoted-printable":      fill("Content-Type: application/x\nContent-Transfer-Encoding: quoted-printable\n\n", "=ZZ=3D= \n"),
		"uuencode":              fill("A: b\n\n", "begin 644 a.txt\n#0V%T\n`\nend\n"),
		"yEnc":                  fill("A: b\n\n", "=ybegin line=128 size=3 name=a.txt\nabc\n=yend\n"),
		"bare CR and NUL":       fill(mixed+"\r\n", "--b\rA: b\x00\r\rx\n"),
		"header":                fill("", "Content-Type: text/plain; name=a\n"),
		"folds":                 fill("Content-Type: x/y;\n", " name=a;\n"),
		"folds of parts":        fill(mixed, "\n--b\nContent-Type: x/y;\n"+strings.Repeat(" name=a;\n", 10000)),
		"encoded words":         fill("Content-Type: x/y; name=\"", "=?utf-8?B?YQ==?= "),
		"fields of parts":       fill(mixed, "--b\n\n--b\nContent-Type: x/y; name=\""+strings.Repeat("=?utf-8?B?YQ==?= ", 1000)+"\"\n"),
		"parameters of parts":   fill(mixed, "\n--b\nContent-Type: x/y"+strings.Repeat("; name*0*=utf-8''%61; name*1=b", 1000)+"\n"),
		"parameters":            fill("Content-Type: x/y", "; name*0*=utf-8''%61; name*1=b"),
		"digest":                fill("Content-Type: multipart/digest; boundary=b\n\n", "--b\n\nContent-Type: multipart/mixed; boundary=b\n\n"),
		"ZIP entries":           zipPart([]byte(fill("", "PK\x03\x04\x14\x00\x00\x00\x08\x00aaaabbbbccccddddeeee\x01\x00\x00\x00a\x03\x00"))[:size*3/4]),
		"ZIP in ZIP":            zipPart([]byte(fill("", string(nested(t, zip.Deflate, makeZip(t, "a.txt")))))[:size*3/4]),
		"7z":                    zipPart([]byte(fill("", "7z\xbc\xaf\x27\x1c"))[:size*3/4]),
		"RAR":                   zipPart([]byte(fill("Rar!\x1a\x07\x00", "Rar!\x1a\x07\x00\x00\x00\x74\x00\x00\x20\x00aaaabbbbccccddddeeee"))[:size*3/4]),
		"tar":                   zipPart([]byte(fill(string(makeTar(t, "a")), string(makeTar(t, "a.txt"))))[:size*3/4]),
		"TNEF":                  zipPart([]byte(fill("\x78\x9f\x3e\x22\x01\x00", "\x02\x05\x90\x06\x00\x10\x00\x00\x00\x1f\x00\x07\x37\x01\x00\x00\x00\x00"))[:size*3/4]),
		"xz of headers":         zipPart([]byte(fill("\xfd7zXZ\x00", "!\x01\xff"))[:size*3/4]),
		"gz of members":         zipPart([]byte(fill("", string(gz(t, nil))))[:size*3/4]),
		"gz that grows":         zipPart(gz(t, zeros)),
		"zst that grows":        zipPart(zst(t, zeros)),
		"ZIP that grows":        zipPart(nested(t, zip.Deflate, zeros)),
		"compound file":         zipPart([]byte(fill(string(compoundFile), "_\x00V\x00B\x00A\x00_\x00P\x00"))[:size*3/4]),
	}
}

// BenchmarkWorst reads messages of 10 MiB that make most work.
func BenchmarkWorst(b *testing.B) {
	s := settings(b)
	for name, text := range worstMessages(b) {
		message := []byte(text)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.examine(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
