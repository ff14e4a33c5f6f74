package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"postern/filters/mime"
	"postern/filters/worker"
)

// filter makes the worker's callbacks of the settings.
func (s *Settings) filter() *worker.Filter { return &worker.Filter{Scan: s.scan} }

// finding is why a message is not wanted. It is no fault, but travels as an error.
type finding struct {
	kind kind
	text string // for the sender of the message
}

func (f *finding) Error() string { return f.text }

// kind is what a finding is about.
type kind int

const (
	blocked    kind = iota
	tooComplex      // exceeds a limit
	ambiguous       // mail readers differ about it
)

func blockedName(name string) error {
	return &finding{blocked, fmt.Sprintf("attachment name not allowed: %s", show(name))}
}

// show makes a name fit to be told: short, without control bytes.
func show(name string) string {
	const most = 80
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 {
			return '?'
		}
		return r
	}, name)
	if len(name) > most {
		name = name[:most/2] + "..." + name[len(name)-most/2:]
	}
	return name
}

// scan judges a message.
func (s *Settings) scan(m *worker.Message) error {
	in, err := m.Input()
	if err != nil {
		return err
	}
	defer in.Close()
	ambiguities, err := s.examine(in)
	var found *finding
	switch {
	case errors.As(err, &found):
	case err != nil:
		return err
	case len(ambiguities) > 0 && s.OnAmbiguous != "none":
		found = &finding{ambiguous, "mail readers differ about the message: " + strings.Join(ambiguities, ", ")}
	}
	if found != nil {
		if s.act(m, found); m.Refused() {
			return nil
		}
	}
	s.fields(m, found, ambiguities)
	return nil
}

// fields replaces the fields that only this program may add.
func (s *Settings) fields(m *worker.Message, found *finding, ambiguities []string) {
	m.DeleteAllHeaders(ambiguityResults)
	if len(ambiguities) > 0 && s.OnAmbiguous != "none" {
		m.InsertHeader(ambiguityResults, s.ambiguityField(m, ambiguities), 0) // like a trace field, RFC 8601, 4
	}
	if s.Header != "" {
		m.DeleteAllHeaders(s.Header)
		if found == nil || found.kind == ambiguous {
			m.AddHeader(s.Header, s.HeaderValue)
		}
	}
}

// policy returns what is set for findings of that kind.
func (s *Settings) policy(k kind) string {
	return map[kind]string{blocked: s.OnBlocked, tooComplex: s.OnComplex, ambiguous: s.OnAmbiguous}[k]
}

// limits returns those that are set for the structure of messages.
func (s *Settings) limits() mime.Limits {
	return mime.Limits{Depth: s.MaxDepth, Parts: s.MaxParts, PartHeader: int(s.MaxPartHeader)}
}

// act does what is set for messages of that kind.
func (s *Settings) act(m *worker.Message, f *finding) {
	switch s.policy(f.kind) {
	case "discard":
		m.Discard()
	case "tempfail":
		m.TempFail(f.text, "451", "4.7.1")
	case "mark":
		m.AddHeader(s.MarkHeader, f.text)
	default:
		m.Reject(f.text, "554", "5.7.1")
	}
}

// examine reads a message and returns nil, a *finding, or what went wrong with reading it. ambiguities are the ways
// in which mail readers may differ about it.
func (s *Settings) examine(in *os.File) (ambiguities []string, err error) {
	message, done, err := mapFile(in)
	if err != nil {
		return nil, err
	}
	defer done()
	x := &examiner{Settings: s}
	// The bytes as they are, whatever their structure claims.
	if err := x.read(bytes.NewReader(message), false); err != nil {
		return nil, err
	}
	ambiguities, err = mime.Walk(message, s.limits(), mime.Viewer{Part: x.part, Name: x.name, Content: x.content})
	if mime.IsLimit(err) {
		err = &finding{tooComplex, err.Error()}
	}
	return ambiguities, err
}

// mapFile maps a file into memory, so that a large one need not fit. The mapping is gone after done.
func mapFile(f *os.File) (b []byte, done func(), err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	size := info.Size()
	if size == 0 {
		return nil, func() {}, nil
	}
	if size != int64(int(size)) {
		return nil, nil, fmt.Errorf("map %s: %w", f.Name(), syscall.EFBIG)
	}
	b, err = syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return b, func() { _ = syscall.Munmap(b) }, nil
}

// examiner is the examination of one message.
type examiner struct {
	*Settings
	window   *sniffer // of content; contents are read one after another
	inner    int      // compressed entries of archives whose beginning was looked at
	level    int      // of archives in archives
	inflated int      // bytes of archives that were compressed into others
}

// part examines what a part is.
func (x *examiner) part(p *mime.Part) error {
	for _, t := range p.Types {
		if bool(x.BlockFragments) && (t == "message/partial" || t == "message/external-body") {
			return &finding{blocked, "fragmented messages are not allowed"}
		}
	}
	return nil
}

// name examines a name.
func (x *examiner) name(_ *mime.Part, name string) error {
	if x.blockedName(name) {
		return blockedName(name)
	}
	return nil
}

// content examines a decoded content.
func (x *examiner) content(_ *mime.Part, r io.Reader) error { return x.read(r, true) }
