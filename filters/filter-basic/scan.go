package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
	blocked kind = iota
	tooComplex
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
	err = s.examine(in)
	var found *finding
	switch {
	case err == nil:
	case errors.As(err, &found):
		s.act(m, found)
		return nil
	default:
		return err
	}
	if s.Header != "" {
		m.DeleteAllHeaders(s.Header)
		m.AddHeader(s.Header, s.HeaderValue)
	}
	return nil
}

// act does what is set for messages of that kind.
func (s *Settings) act(m *worker.Message, f *finding) {
	what := s.OnBlocked
	if f.kind == tooComplex {
		what = s.OnComplex
	}
	switch what {
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

// examine reads a message and returns nil, a *finding, or what went wrong with reading it.
func (s *Settings) examine(in *os.File) error {
	x := &examiner{Settings: s}
	// The bytes as they are, whatever their structure claims.
	if err := x.content(in, false); err != nil {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err := x.message(in, 0)
	if err == nil || !errors.Is(err, errMalformed) {
		return err
	}
	// Readers of mail differ in what they make of a broken structure. So take every line that could be a header
	// line of a part for one.
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return x.anyHeader(in)
}
