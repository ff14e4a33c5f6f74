package archive

import (
	stdtar "archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// found is what a walk tells.
type found struct {
	names    []string
	contents []string
	locked   bool
	err      error
}

func walk(b []byte) found {
	var f found
	f.err = Walk(b, &Seen{
		Name:    func(name string) error { f.names = append(f.names, name); return nil },
		Locked:  func() error { f.locked = true; return nil },
		Content: func(b []byte) error { f.contents = append(f.contents, string(b)); return nil },
	})
	return f
}

// has reports whether a name was told, whatever directory it is in.
func (f found) has(name string) bool {
	return slices.ContainsFunc(f.names, func(n string) bool {
		return n == name || strings.HasSuffix(n, "/"+name)
	})
}

// fixture reads an archive that a real program has made.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil && strings.HasSuffix(name, ".gz") {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(z)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func le16(n int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(n)) }
func le32(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// rar4Block is a block of RAR 4 with data behind it.
func rar4Block(kind byte, flags int, header, data []byte) []byte {
	return slices.Concat([]byte{0, 0, kind}, le16(flags), le16(7+len(header)), header, data)
}

func rar4Entry(flags int, name string) []byte {
	return rar4Block(rar4File, flags|rar4Data, slices.Concat(le32(7), le32(7), make([]byte, 11), le16(len(name)), le32(32), []byte(name)), []byte("content"))
}

// rar5Block is a block of RAR 5; sizes are small.
func rar5Block(kind byte, rest ...byte) []byte {
	return append([]byte{0, 0, 0, 0, byte(1 + len(rest)), kind}, rest...)
}

func rar5Entry(name string, extra ...byte) []byte {
	body := append([]byte{rar5Extra | rar5Data, byte(len(extra)), 7, 0, 7, 32, 0, 1, byte(len(name))}, name...)
	return append(rar5Block(rar5File, append(body, extra...)...), "content"...)
}

func tnefAttribute(id int, data []byte) []byte {
	return slices.Concat([]byte{2}, le32(id), le32(len(data)), data, []byte{0, 0})
}

func tnefOf(attributes ...[]byte) []byte {
	return slices.Concat([]byte("\x78\x9f\x3e\x22\x01\x00"), slices.Concat(attributes...))
}

func tarOf(t testing.TB, headers ...*stdtar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := stdtar.NewWriter(&b)
	for _, h := range headers {
		h.Size, h.Mode = 3, 0o644
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write([]byte("MZ\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWalk(t *testing.T) {
	long := strings.Repeat("directory/", 20) + "invoice.exe"
	damaged := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 0x55
		return b
	}
	const rar4 = "Rar!\x1a\x07\x00"
	const rar5 = "Rar!\x1a\x07\x01\x00"
	main4 := string(rar4Block(rar4Main, 0, make([]byte, 6), nil))
	main5 := string(rar5Block(1, 0, 0))
	old := make([]byte, 1024)
	copy(old, "invoice.exe")
	copy(old[100:], "0000644\x00")
	copy(old[124:], "00000000000\x00")
	sum := 8 * int(' ')
	for i, c := range old[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	copy(old[148:], []byte{byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	tests := []struct {
		name   string
		b      []byte
		want   string
		locked bool
	}{
		{"7z", fixture(t, "plain.7z"), "invoice.exe", false},
		{"7z, packed header", fixture(t, "lzma.7z"), "invoice.exe", false},
		{"7z, directories", fixture(t, "many.7z"), "a long name of an invoice.exe", false},
		{"7z, encrypted content", fixture(t, "content.7z"), "invoice.exe", true},
		{"7z, encrypted header", fixture(t, "header.7z"), "", true},
		{"7z behind a program", append([]byte("MZ"+strings.Repeat("x", 5000)), fixture(t, "lzma.7z")...), "invoice.exe", false},
		{"ISO 9660", fixture(t, "plain.img.gz"), "README.TXT", false},
		{"ISO 9660, deep", fixture(t, "plain.img.gz"), "A_LONG_N.EXE", false},
		{"Joliet and Rock Ridge", fixture(t, "joliet.img.gz"), "a long name of an invoice.exe", false},
		{"UDF", fixture(t, "udf.img.gz"), "a long name of an invoice.exe", false},
		{"RAR 4", []byte(rar4 + main4 + string(rar4Entry(0, "a.txt")) + string(rar4Entry(0, "dir\\invoice.exe"))), "dir\\invoice.exe", false},
		{"RAR 4, Unicode", []byte(rar4 + main4 + string(rar4Entry(rar4Unicode, "a?.exe\x00\x04\x10a\x16.e\x00xe"))), "a\u0416.exe", false},
		{"RAR 4, encrypted", []byte(rar4 + main4 + string(rar4Entry(rar4Encrypted, "invoice.exe"))), "invoice.exe", true},
		{"RAR 4, encrypted header", []byte(rar4 + string(rar4Block(rar4Main, rar4Locked, make([]byte, 6), nil)) + "rubbish"), "", true},
		{"RAR 4 behind a program", []byte("MZ" + rar4 + main4 + string(rar4Entry(0, "invoice.exe"))), "invoice.exe", false},
		{"RAR 5", []byte(rar5 + main5 + string(rar5Entry("a.txt")) + string(rar5Entry("dir/invoice.exe"))), "invoice.exe", false},
		{"RAR 5, encrypted", []byte(rar5 + main5 + string(rar5Entry("invoice.exe", 2, rar5Encryption, 0))), "invoice.exe", true},
		{"RAR 5, encrypted header", []byte(rar5 + string(rar5Block(rar5Locked, 0, 0)) + "rubbish"), "", true},
		{"tar", tarOf(t, &stdtar.Header{Name: "a.txt"}, &stdtar.Header{Name: "invoice.exe"}), "invoice.exe", false},
		{"tar, USTAR prefix", tarOf(t, &stdtar.Header{Name: long, Format: stdtar.FormatUSTAR}), "invoice.exe", false},
		{"tar, PAX", tarOf(t, &stdtar.Header{Name: long + "\u00e4.exe", Format: stdtar.FormatPAX}), "invoice.exe\u00e4.exe", false},
		{"tar, GNU", tarOf(t, &stdtar.Header{Name: long + long, Format: stdtar.FormatGNU}), "invoice.exe", false},
		{"tar, damaged in front", damaged(tarOf(t, &stdtar.Header{Name: "a.txt"}, &stdtar.Header{Name: "invoice.exe"}), 148), "invoice.exe", false},
		{"tar of version 7", old, "invoice.exe", false},
		{"TNEF, title", tnefOf(tnefAttribute(attachmentTitle, []byte("INVOICE.EXE\x00"))), "INVOICE.EXE", false},
		{"TNEF, long name", tnefOf(tnefAttribute(attachmentProperties, slices.Concat(le32(1), []byte{0x1f, 0, 7, 0x37}, le32(1), le32(24),
			utf16le("invoice.exe\x00")))), "invoice.exe", false},
		{"TNEF, long name in eight bits", tnefOf(tnefAttribute(attachmentProperties, slices.Concat(le32(1), []byte{0x1e, 0, 7, 0x37}, le32(1), le32(12),
			[]byte("invoice.exe\x00")))), "invoice.exe", false},
		{"TNEF in TNEF", tnefOf(tnefAttribute(attachmentProperties, append(make([]byte, 20), tnefOf(tnefAttribute(attachmentTitle, []byte("invoice.exe\x00")))...))),
			"invoice.exe", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := walk(tt.b)
			if got.err != nil || tt.want != "" && !got.has(tt.want) || got.locked != tt.locked {
				t.Errorf("names %q, locked %v, error %v; want %s, %v", got.names, got.locked, got.err, tt.want, tt.locked)
			}
			if !Known(tt.b) {
				t.Error("not known as an archive")
			}
		})
	}
	if got := walk(tnefOf(tnefAttribute(attachmentData, []byte("PK\x03\x04")))); !slices.Equal(got.contents, []string{"PK\x03\x04"}) {
		t.Errorf("contents of TNEF %q", got.contents)
	}
}

// TestUnreadable has archives whose names nobody can read, and other data that are none.
func TestUnreadable(t *testing.T) {
	b := fixture(t, "lzma.7z")
	for name, broken := range map[string][]byte{
		"7z without an end":                        b[:len(b)-10],
		"7z with a header of 4 GiB":                slices.Concat(b[:12], le32(0), le32(1), b[20:]),
		"7z with a bad packed header":              append(slices.Clone(b[:32]), bytes.Repeat([]byte{0xff}, len(b)-32)...),
		"7z that cannot be read, and an empty one": slices.Concat(b[:12], le32(0), le32(1), b[20:], []byte("7z\xbc\xaf\x27\x1c"), make([]byte, 26)),
		"RAR of an unknown version":                []byte("Rar!\x1a\x07\x07rest"),
		"RAR without blocks":                       []byte("Rar!\x1a\x07\x00" + strings.Repeat("\xff", 100)),
		"64 signatures of 7z and more":             bytes.Repeat([]byte("7z\xbc\xaf\x27\x1c"), 1000),
	} {
		if got := walk(broken); !errors.Is(got.err, ErrUnreadable) {
			t.Errorf("%s: names %q, error %v", name, got.names, got.err)
		}
	}
	for name, other := range map[string][]byte{
		"nothing": nil, "text": []byte(strings.Repeat("hello\n", 20000)), "zeros": make([]byte, 1<<20),
	} {
		if got := walk(other); got.err != nil || len(got.names) > 0 || Known(other) {
			t.Errorf("%s: names %q, error %v, known %v", name, got.names, got.err, Known(other))
		}
	}
}

// TestWorkIsLinear has archives that make most work, and four times as much of each: the names told grow no faster.
func TestWorkIsLinear(t *testing.T) {
	worst := map[string]func(n int) []byte{
		"names of 7z": func(n int) []byte {
			header := append([]byte{propHeader, propNames, 0xe0, 0, 0, 0}, bytes.Repeat([]byte("a\x00b\x00\x00\x00\x11"), n)...)
			b := slices.Concat([]byte("7z\xbc\xaf\x27\x1c\x00\x04"), make([]byte, 4), le32(0), le32(0), le32(len(header)), le32(0), make([]byte, 4))
			return append(b, header...)
		},
		"directories that have themselves in them": func(n int) []byte {
			b := make([]byte, 20*sector)
			d := b[firstDescriptor:]
			copy(d, "\x01CD001")
			copy(d[128:], le16(sector))
			copy(d[158:], le32(18))
			copy(d[166:], le32(n*sector))
			for range n {
				record := make([]byte, sector)
				for at := 0; at+36 <= sector; at += 36 {
					record[at], record[at+25], record[at+32] = 36, 2, 3
					copy(record[at+2:], le32(18))
					copy(record[at+33:], "dir")
				}
				b = append(b, record...)
			}
			return b
		},
		"TNEF in TNEF": func(n int) []byte {
			return tnefOf(tnefAttribute(attachmentProperties, bytes.Repeat([]byte("\x78\x9f\x3e\x22\x01\x00\x00\x05\x90\x06\x00\xff\xff\xff\x00"), n)))
		},
		"RAR in RAR": func(n int) []byte {
			return bytes.Repeat(append([]byte("Rar!\x1a\x07\x00"), rar4Entry(0, "a.txt")...), n)
		},
	}
	for name, make := range worst {
		one, four := len(walk(make(200)).names), len(walk(make(800)).names)
		if four > 5*one+1000 {
			t.Errorf("%s: %d names, and %d in four times as much", name, one, four)
		}
	}
}

func FuzzWalk(f *testing.F) {
	for _, name := range []string{"plain.7z", "lzma.7z", "content.7z", "header.7z"} {
		f.Add(fixture(f, name))
	}
	f.Add(append([]byte("Rar!\x1a\x07\x00"), rar4Entry(rar4Unicode, "a?.exe\x00\x04\x10a\x16.e\x00xe")...))
	f.Add(append([]byte("Rar!\x1a\x07\x01\x00"), rar5Entry("a.exe", 2, rar5Encryption, 0)...))
	f.Add(tnefOf(tnefAttribute(attachmentTitle, []byte("a.exe\x00"))))
	f.Add(tarOf(f, &stdtar.Header{Name: "a.exe", Format: stdtar.FormatPAX}))
	f.Fuzz(func(t *testing.T, b []byte) {
		size := 0
		err := Walk(b, &Seen{
			Name:    func(name string) error { size += len(name); return nil },
			Locked:  func() error { return nil },
			Content: func([]byte) error { return nil },
		})
		if err != nil && !errors.Is(err, ErrUnreadable) {
			t.Error(err)
		}
		if limit := 400*len(b) + 1<<16; size > limit && size > 4*maxHeader {
			t.Errorf("%d bytes of names in %d", size, len(b))
		}
	})
}
