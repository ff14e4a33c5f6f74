package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// pack packs b with the writer that open makes.
func pack[W io.WriteCloser](t testing.TB, open func(io.Writer) (W, error), b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err == nil {
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gz(t testing.TB, b []byte) []byte {
	return pack(t, func(w io.Writer) (*gzip.Writer, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) }, b)
}

func zst(t testing.TB, b []byte) []byte {
	return pack(t, func(w io.Writer) (*zstd.Encoder, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) }, b)
}

func packXZ(t testing.TB, b []byte) []byte { return pack(t, xz.NewWriter, b) }

func makeTar(t testing.TB, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		err := w.WriteHeader(&tar.Header{Name: n, Size: 3, Mode: 0o644})
		if err == nil {
			_, err = io.WriteString(w, "MZ\n")
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

// bz2 is a tar archive with a.exe in it, packed by bzip2, which no library writes.
const bz2 = "QlpoOTFBWSZTWXySDO0AAG7/gMmQAADAAW0AAAIAGGIAHkAICCAAVDSGiaaYmE0P1BJTUyaaaNBiaH1dRkIIvQhE7U0KTlFAhwdMW4eLJwirIG4t00KxT4oz8faEk8oiAbF3JFOFCQfJIM7Q"

// sevenZip reads an archive of 7-Zip.
func sevenZip(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("archive/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// flagged is a ZIP archive with its entry marked as encrypted.
func flagged(t testing.TB, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := z.CreateRaw(&zip.FileHeader{Name: name, Flags: 1}); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// largeDictionary gives the first block of an xz stream a dictionary of 4 GiB.
func largeDictionary(b []byte) []byte {
	b = slices.Clone(b)
	block := b[12:]
	header := block[:(int(block[0])+1)*4]
	header[bytes.Index(header, []byte{0x21, 0x01})+2] = 40
	sum := crc32.ChecksumIEEE(header[:len(header)-4])
	copy(header[len(header)-4:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
	return b
}

// longHeader gives a member of gzip an extra field, a name and a comment that are long.
func longHeader(member []byte) []byte {
	const hasSum, hasExtra, hasName, hasComment = 2, 4, 8, 16
	long := strings.Repeat("n", 1000)
	return slices.Concat(member[:3], []byte{hasSum | hasExtra | hasName | hasComment}, member[4:10], []byte("\x03\x00abc"+long+".txt\x00"+long+"\x00ss"), member[10:])
}

// method says of the entries of a ZIP archive that they are compressed in another way.
func method(b []byte, n uint16) []byte {
	b = slices.Clone(b)
	for _, e := range zipEntries {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], e.signature)
			if i < 0 {
				break
			}
			at += i
			binary.LittleEndian.PutUint16(b[at+e.flagsAt+2:], n)
		}
	}
	return b
}

func TestArchives(t *testing.T) {
	const exe, locked = "not allowed", "encrypted archive"
	bzip, err := base64.StdEncoding.DecodeString(bz2)
	if err != nil {
		t.Fatal(err)
	}
	named := pack(t, func(w io.Writer) (*gzip.Writer, error) {
		z := gzip.NewWriter(w)
		z.Name = "a.exe"
		return z, nil
	}, []byte("MZ"))
	deep := makeTar(t, "a.txt")
	for range 6 {
		deep = gz(t, deep)
	}
	cutOff := gz(t, makeTar(t, "a.exe"))
	cutOff = cutOff[:len(cutOff)-9]
	plain := []byte(strings.Repeat("nothing to see\n", 1000))
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"tar", makeTar(t, "a.txt", "a.exe"), exe},
		{"tar, harmless", makeTar(t, "a.txt"), ""},
		{"tar.gz", gz(t, makeTar(t, "a.exe")), exe},
		{"tar.gz, harmless", gz(t, makeTar(t, "a.txt")), ""},
		{"tar.xz", packXZ(t, makeTar(t, "a.exe")), exe},
		{"tar.zst", zst(t, makeTar(t, "a.exe")), exe},
		{"tar.zst behind a frame to skip", append([]byte("\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"), zst(t, makeTar(t, "a.exe"))...), exe},
		{"tar.bz2", bzip, exe},
		{"tar.gz.xz", packXZ(t, gz(t, makeTar(t, "a.exe"))), exe},
		{"name in gz", named, exe},
		{"gz in two members", append(gz(t, makeTar(t, "a.txt")[:1024]), gz(t, makeTar(t, "a.exe"))...), exe},
		{"gz with a long name", longHeader(gz(t, makeTar(t, "a.exe"))), exe},
		{"gz with a long name in its second member", append(gz(t, makeTar(t, "a.txt")[:1024]), longHeader(gz(t, makeTar(t, "a.exe")))...), exe},
		{"gz without the end of its name", []byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03name"), "cannot be looked into"},
		{"gz with rubbish behind", append(gz(t, makeTar(t, "a.exe")), "rubbish"...), exe},
		{"gz cut off", cutOff, exe},
		{"zip in gz", gz(t, makeZip(t, "a.exe")), exe},
		{"7z", sevenZip(t, "lzma.7z"), exe},
		{"7z in zip", nested(t, zip.Deflate, sevenZip(t, "lzma.7z")), exe},
		{"7z in tar.gz", gz(t, append(make([]byte, 512), sevenZip(t, "lzma.7z")...)), exe},
		{"tar in zip", nested(t, zip.Deflate, makeTar(t, "a.exe")), exe},
		{"gz of text", gz(t, plain), ""},
		{"xz of text", packXZ(t, plain), ""},
		{"zst of text", zst(t, plain), ""},
		{"too deep", deep, "nested too deep"},
		{"grows", gz(t, append(makeTar(t, "a.txt"), make([]byte, 2<<20)...)), "grows too large"},
		{"grows, of zeros alone", gz(t, make([]byte, 2<<20)), ""},
		{"encrypted zip", flagged(t, "a.txt"), locked},
		{"encrypted zip with a blocked name", flagged(t, "a.exe"), locked},
		{"encrypted 7z", sevenZip(t, "header.7z"), locked},
		{"zip by Deflate64", method(makeZip(t, "a.txt"), 9), "cannot be looked into"},
		{"zip by Zstandard with a blocked name", method(makeZip(t, "a.exe"), 93), exe},
		{"zip by no method that there is", method(makeZip(t, "a.txt"), 0x4141), ""},
		{"xz that is nothing but headers", append([]byte("\xfd7zXZ\x00"), bytes.Repeat([]byte("!\x01\xff"), 1<<20)...), "cannot be looked into"},
		{"dictionary of 4 GiB", largeDictionary(packXZ(t, makeTar(t, "a.exe"))), "cannot be looked into"},
		{"broken 7z", sevenZip(t, "lzma.7z")[:100], "cannot be looked into"},
		{"macros", makeZip(t, "word/document.xml", "word/vbaProject.bin"), "macros"},
		{"macros of Excel 4", makeZip(t, "xl/macrosheets/sheet1.xml"), "macros"},
		{"macros of OpenDocument", makeZip(t, "Basic/Standard/script-lb.xml"), "macros"},
		{"document", makeZip(t, "word/document.xml"), ""},
		{"macros in a compound file", append(append(slices.Clone(compoundFile), make([]byte, windowSize)...), vbaProject...), "macros"},
		{"compound file", append(slices.Clone(compoundFile), make([]byte, 1000)...), ""},
	}
	strict := settings(t, "--on-encrypted=reject", "--on-macros=reject", "--max-unpacked=1M")
	lenient := settings(t, "--max-unpacked=1M")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			message := zipPart(tt.b)
			if err := examine(t, strict, message); !isFinding(err, tt.want) {
				t.Errorf("found %v, want %q", err, tt.want)
			}
			if err := examine(t, lenient, message); strings.Contains(tt.want, "macros") && err != nil ||
				tt.want == exe && !isFinding(err, exe) || tt.name == "encrypted zip" && err != nil {
				t.Errorf("without policies: found %v, want %q", err, tt.want)
			}
		})
	}
}

// TestArchiveNames has names of what is packed, and of documents with macros.
func TestArchiveNames(t *testing.T) {
	s := settings(t, "--on-macros=reject")
	for name, want := range map[string]string{
		"invoice.exe.gz": "not allowed", "invoice.js.xz": "not allowed", "invoice.pdf.gz": "", "a.tar.gz": "", "reports-example.com.gz": "",
		"a.exe.gz.zst": "not allowed", "a.DOCM": "macros", "a.docx": "", "docm": "", "a.iqy": "not allowed", "a.psm1": "not allowed",
	} {
		if err := examine(t, s, attachment("Content-Disposition: attachment; filename="+name)); !isFinding(err, want) {
			t.Errorf("%s: found %v, want %q", name, err, want)
		}
	}
}

// TestTarOfAnotherKind has a packed archive that looks like tar as well, by the name in its header.
func TestTarOfAnotherKind(t *testing.T) {
	packed := gz(t, makeTar(t, "a.exe"))
	name := strings.Repeat("a", 247) + "ustar" + strings.Repeat("b", 100) + "\x00"
	both := slices.Concat(packed[:3], []byte{packed[3] | 8}, packed[4:10], []byte(name), packed[10:])
	if err := examine(t, settings(t), zipPart(both)); !isFinding(err, "a.exe") {
		t.Errorf("found %v", err)
	}
}

// TestMarksDoNotHide has a message that is marked for one thing and has something worse behind it.
func TestMarksDoNotHide(t *testing.T) {
	message := zipPart(slices.Concat(flagged(t, "a.txt"), makeZip(t, "word/vbaProject.bin"), makeZip(t, "a.exe")))
	got := scanResults(t, message, "--on-encrypted=mark", "--on-macros=mark")
	if !strings.Contains(got, "B554 5.7.1 attachment%20name%20not%20allowed:%20a.exe") {
		t.Errorf("RESULTS %q", got)
	}
	got = scanResults(t, message, "--on-encrypted=mark", "--on-macros=mark", "--on-blocked=mark")
	for _, want := range []string{"encrypted%20archive", "macros", "a.exe"} {
		if !strings.Contains(got, want) {
			t.Errorf("RESULTS %q, without %s", got, want)
		}
	}
}

// TestNamesAreBounded has entries of an archive that overlap, so that their names are many times its size.
func TestNamesAreBounded(t *testing.T) {
	overlapping := bytes.Repeat([]byte("PK\x03\x04\x14\x00\x00\x00\x08\x00aaaabbbbccccddddee\x00\x60\x00\x00"), 20000)
	for policy, want := range map[string]string{"reject": "B554 5.7.1 message%20has%20too%20many%20names\n", "mark": "HX-Filter-Warning message%20has%20too%20many%20names\n"} {
		if got := scanResults(t, zipPart(overlapping), "--on-complex="+policy); !strings.Contains(got, want) {
			t.Errorf("%s: RESULTS %q", policy, got)
		}
	}
}

// TestArchivesAreBounded has archives that make most memory; what is held is bounded, whatever they say.
func TestArchivesAreBounded(t *testing.T) {
	zeros := make([]byte, 1<<20)
	tarred := append(makeTar(t, "a.txt"), zeros...)
	large := append(make([]byte, 0, 24<<20), tarred...)
	large = append(large[:24<<20-2048], makeTar(t, "a.exe")...)
	if err := examine(t, settings(t), zipPart(gz(t, large))); !isFinding(err, "not allowed") {
		t.Errorf("at the end of a large tar.gz: found %v", err)
	}
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	start := heap.TotalAlloc
	if err := examine(t, settings(t), zipPart(gz(t, large[:20<<20]))); err != nil {
		t.Errorf("a large tar.gz: found %v", err)
	}
	if runtime.ReadMemStats(&heap); heap.TotalAlloc-start > 16<<20 {
		t.Errorf("a large tar.gz: allocated %d MiB", (heap.TotalAlloc-start)>>20)
	}
	s := settings(t, "--max-unpacked=512k")
	for name, b := range map[string][]byte{
		"gz": gz(t, tarred), "xz": packXZ(t, tarred), "zst": zst(t, tarred), "zip": nested(t, zip.Deflate, tarred),
		"dictionary": largeDictionary(packXZ(t, tarred)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = examine(t, s, zipPart(b))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
			t.Errorf("%s: allocated %d MiB", name, used>>20)
		}
	}
}
