package main

import (
	"bytes"
	"io"
)

// The test strings are kept in halves, so that this program is not itself found by what looks for them.
var (
	gtube  = []byte("XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X")
	eicar  = []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$` + `EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`)
	inBoth = []byte("-STANDARD-ANTI") // found faster, as base64 has no hyphen
)

// Sizes of the window that slides over a content: what is looked for must fit into overlap bytes, such as the entry of
// an archive with a name and an extra field of 64 KiB each.
const (
	windowSize = 512 << 10
	overlap    = 130 << 10
)

// read reads a decoded content to its end, of any size in bounded memory. With names, the names of files that the
// content has in it count as well.
func (x *examiner) read(r io.Reader, names bool) error {
	w := x.window
	if w == nil {
		w = &sniffer{x: x, buf: make([]byte, 0, windowSize)}
	}
	x.window = nil // an archive inside has one of its own
	defer func() { x.window = w }()
	w.begin(names && bool(x.InspectArchives))
	if err := w.readAll(r); err != nil {
		return err
	}
	return w.end()
}

// sniffer is a window that slides over a content.
type sniffer struct {
	x        *examiner
	archives bool
	buf      []byte
	fresh    int    // bytes at the beginning of buf that were looked at before
	archive  []byte // the content, from a window on in which an archive begins
}

func (s *sniffer) begin(archives bool) {
	s.archives, s.buf, s.fresh, s.archive = archives, s.buf[:0], 0, nil
}

// readAll reads r to its end.
func (s *sniffer) readAll(r io.Reader) error {
	for {
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if len(s.buf) == cap(s.buf) {
			if err := s.look(); err != nil {
				return err
			}
			s.fresh = copy(s.buf, s.buf[len(s.buf)-overlap:])
			s.buf = s.buf[:s.fresh]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// end looks at what is left, and into archives.
func (s *sniffer) end() error {
	if err := s.look(); err != nil {
		return err
	}
	if s.archive != nil {
		return s.x.archivesIn(s.archive)
	}
	return nil
}

// look looks at one piece of a content.
func (s *sniffer) look() error {
	b := s.buf
	if bool(s.x.TestSignatures) && bytes.Contains(b, inBoth) {
		if bytes.Contains(b, gtube) {
			return &finding{blocked, "message contains the GTUBE spam test string"}
		}
		if bytes.Contains(b, eicar) {
			return &finding{blocked, "message contains the EICAR virus test file"}
		}
	}
	if !s.archives {
		return nil
	}
	switch {
	case s.archive != nil && len(s.archive) < maxArchive:
		s.archive = append(s.archive, b[s.fresh:]...)
	case s.archive == nil && bytes.Contains(b, localEntry):
		s.archive = bytes.Clone(b)
	}
	return s.x.zipNames(b)
}
