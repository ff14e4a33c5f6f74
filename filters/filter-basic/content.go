package main

import (
	"bytes"
	"encoding/binary"
	"io"
)

// The test strings are kept in halves, so that this program is not itself found by what looks for them.
var (
	gtube = []byte("XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X")
	eicar = []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$` + `EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`)
)

// Sizes of the window that slides over a content: what is looked for must fit into overlap bytes.
const (
	windowSize = 64 << 10
	overlap    = 1 << 10
)

// content reads a decoded content to its end, of any size in bounded memory. With names, what the content itself says
// of names counts as well: entries of archives and the "begin" lines of uuencoded files.
func (x *examiner) content(r io.Reader, names bool) error {
	if x.leaf == nil {
		x.leaf = x.sniffer(true)
	}
	w := x.leaf
	w.names = names
	if err := w.readAll(r); err != nil {
		// Broken base64, for one. What could be read is looked at.
		if found := w.end(); found != nil {
			return found
		}
		return malformed(err)
	}
	return w.end()
}

// readAll reads r to its end.
func (s *sniffer) readAll(r io.Reader) error {
	for {
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if len(s.buf) == cap(s.buf) {
			if err := s.slide(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// slide looks at a full window and keeps its end.
func (s *sniffer) slide() error {
	if err := s.x.window(s.buf, s.names, s.atStart); err != nil {
		return err
	}
	n := copy(s.buf, s.buf[len(s.buf)-overlap:])
	s.buf, s.atStart = s.buf[:n], false
	return nil
}

// sniffer is a window that slides over what is written to it.
type sniffer struct {
	x       *examiner
	names   bool
	buf     []byte
	atStart bool // buf begins with the beginning of the content
}

func (x *examiner) sniffer(names bool) *sniffer {
	return &sniffer{x: x, names: names, buf: make([]byte, 0, windowSize), atStart: true}
}

// Write fails with a finding as soon as there is one.
func (s *sniffer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), cap(s.buf)-len(s.buf))
		s.buf = append(s.buf, rest[:n]...)
		rest = rest[n:]
		if len(s.buf) == cap(s.buf) {
			if err := s.slide(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// end looks at what is left.
func (s *sniffer) end() error {
	err := s.x.window(s.buf, s.names, s.atStart)
	s.buf, s.atStart = s.buf[:0], true
	return err
}

// window looks at one piece of a content.
func (x *examiner) window(b []byte, names, atStart bool) error {
	if x.TestSignatures {
		if bytes.Contains(b, gtube) {
			return &finding{blocked, "message contains the GTUBE spam test string"}
		}
		if bytes.Contains(b, eicar) {
			return &finding{blocked, "message contains the EICAR virus test file"}
		}
	}
	if !names {
		return nil
	}
	if err := x.uuencoded(b, atStart); err != nil {
		return err
	}
	if !x.InspectArchives {
		return nil
	}
	return x.zipNames(b)
}

// uuencoded looks for lines such as "begin 644 name".
func (x *examiner) uuencoded(b []byte, atStart bool) error {
	for {
		i := bytes.Index(b, []byte("begin "))
		if i < 0 {
			return nil
		}
		begins := i == 0 && atStart || i > 0 && b[i-1] == '\n'
		b = b[i+len("begin "):]
		atStart = false
		line := b[:min(len(b), overlap/2)]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line = line[:end]
		}
		mode, name, ok := bytes.Cut(line, []byte(" "))
		if begins && ok && len(mode) >= 3 && len(mode) <= 5 && len(bytes.Trim(mode, "01234567")) == 0 {
			if err := x.name(string(bytes.TrimRight(name, "\r"))); err != nil {
				return err
			}
		}
	}
}

// The entries of a ZIP archive: signature, offset of the name's length, offset of the name. APPNOTE.TXT 4.3.7 and
// 4.3.12. The entries are looked for in the bytes, in order, so a damaged archive, or one behind other data, is no
// way round.
var zipEntries = []struct {
	signature          []byte
	lengthAt, nameAt   int
	versionAt, version int // a plausible one, so that few other bytes are taken for an entry
}{
	{[]byte("PK\x03\x04"), 26, 30, 4, 100},
	{[]byte("PK\x01\x02"), 28, 46, 6, 100},
}

func (x *examiner) zipNames(b []byte) error {
	for _, e := range zipEntries {
		for rest := b; ; {
			i := bytes.Index(rest, e.signature)
			if i < 0 || len(rest[i:]) < e.nameAt {
				break
			}
			entry := rest[i:]
			rest = entry[len(e.signature):]
			n := int(binary.LittleEndian.Uint16(entry[e.lengthAt:]))
			version := int(entry[e.versionAt])
			if n == 0 || n > overlap-e.nameAt || len(entry) < e.nameAt+n || version > e.version {
				continue
			}
			if err := x.name(string(entry[e.nameAt : e.nameAt+n])); err != nil {
				return err
			}
		}
	}
	return nil
}
