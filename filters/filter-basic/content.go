package main

import (
	"bytes"
	"io"

	"postern/filters/filter-basic/archive"
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
	first    bool   // nothing was looked at before
	whole    bool   // archive is not cut off
	compound bool   // the content is a compound file
	tar      bool   // or a tar archive
}

func (s *sniffer) begin(archives bool) {
	*s = sniffer{x: s.x, archives: archives, buf: s.buf[:0], first: true, whole: true}
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
		return s.x.lookInside(s.archive, s.whole)
	}
	return nil
}

// look looks at one piece of a content.
func (s *sniffer) look() error {
	b := s.buf
	if bool(s.x.TestSignatures) && bytes.Contains(b, inBoth) {
		for _, test := range []struct {
			signature []byte
			text      string
		}{{gtube, "message contains the GTUBE spam test string"}, {eicar, "message contains the EICAR virus test file"}} {
			if bytes.Contains(b, test.signature) {
				if err := s.x.found(blocked, test.text); err != nil {
					return err
				}
			}
		}
	}
	if !s.archives {
		return nil
	}
	if err := s.macros(b); err != nil {
		return err
	}
	if s.first {
		s.tar = archive.IsTar(b)
	}
	if s.tar { // of which only names are wanted, so that it need not be kept
		if err := archive.Tar(b, s.x.seen()); err != nil {
			return err
		}
	}
	s.keep(b)
	s.first = false
	return s.x.zipNames(b)
}

// macros looks for macros in a compound file.
func (s *sniffer) macros(b []byte) error {
	if s.first {
		s.compound = bytes.HasPrefix(b, compoundFile)
	}
	if s.compound && bytes.Contains(b, vbaProject) {
		return s.x.found(macros, "message has a document with macros")
	}
	return nil
}

// begins reports whether b is the beginning of an archive that has to be kept: what looks like tar may be another kind
// as well.
func (s *sniffer) begins(b []byte) bool {
	if s.tar {
		return packerOf(b) != nil || archive.OtherThanTar(b)
	}
	return isArchive(b)
}

// keep keeps the content if there is an archive in it.
func (s *sniffer) keep(b []byte) {
	switch {
	case len(s.archive)+len(b)-s.fresh > maxArchive:
		s.whole = false
	case s.archive != nil:
		s.archive = append(s.archive, b[s.fresh:]...)
	case bytes.Contains(b, localEntry) || archive.Inside(b) || s.first && s.begins(b[:min(len(b), archive.Beginning)]):
		s.archive = bytes.Clone(b)
	}
}
