package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
	unclean         // has fields that cannot all be removed
	ambiguous       // mail readers differ about it
	encrypted       // an archive cannot be looked into
	macros          // a document has macros
	virus
	spam
	refusedByScanner
	deferredByScanner
	discardedByScanner
	unscanned // a scanner did not answer
	spfFailed
	dmarcMarked
	dmarcRefused
	noAuthor
	uncheckedSender
)

// show makes a name fit to be told: short, without control bytes.
func show(name string) string {
	const most = 80
	name = printable(name)
	if len(name) > most {
		name = name[:most/2] + "..." + name[len(name)-most/2:]
	}
	return name
}

// printable is a text without control bytes, and what is not ASCII.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, text)
}

// scan judges a message.
func (s *Settings) scan(m *worker.Message) error {
	in, err := m.Input()
	if err != nil {
		return err
	}
	defer in.Close()
	content, done, err := mapFile(in)
	if err != nil {
		return err
	}
	defer done()
	ambiguities, findings, err := s.examine(content)
	if err != nil {
		return err
	}
	var scanned scanned
	if !s.ends(findings) {
		sender, err := s.checkSender(m, content, &scanned.changes)
		if err != nil {
			return err
		}
		findings = append(findings, sender...)
	}
	if !s.ends(findings) {
		s.askScanners(m.Context(), forScanners(m, content), &scanned)
		findings = append(findings, scanned.findings...)
	}
	for _, f := range findings {
		if s.act(m, f); m.Refused() {
			return nil
		}
	}
	return s.fields(m, findings, ambiguities, scanned)
}

// fields changes the header of a message that is delivered: fields that only this program may add are replaced.
func (s *Settings) fields(m *worker.Message, findings []*finding, ambiguities []string, scanned scanned) error {
	c := &scanned.changes
	value := ""
	if len(ambiguities) > 0 && s.OnAmbiguous != "none" {
		value = s.ambiguityField(m, ambiguities)
	}
	c.replace(ambiguityResults, value, 0) // a trace field, RFC 8601, 4
	if s.ScanHeader != "" {
		value = ""
		if len(scanned.results) > 0 {
			value = s.serviceID(m) + ";\n\t" + strings.Join(scanned.results, ";\n\t")
		}
		c.replace(s.ScanHeader, value, 0)
	}
	if s.Header != "" {
		value = s.HeaderValue
		if slices.ContainsFunc(findings, func(f *finding) bool { return !passing[f.kind] }) {
			value = ""
		}
		c.replace(s.Header, value, -1)
	}
	f, err := c.tooMany(m.CountHeaders)
	switch {
	case err != nil:
		return err
	case f != nil:
		s.act(m, f)
	default:
		c.make(m)
	}
	return nil
}

// passing are the kinds of findings with which a message still counts as clean.
var passing = map[kind]bool{ambiguous: true, encrypted: true, macros: true}

// policy returns what is set for findings of that kind.
func (s *Settings) policy(k kind) string {
	switch k {
	case blocked:
		return s.OnBlocked
	case tooComplex:
		return s.OnComplex
	case unclean:
		if s.OnComplex == "mark" { // it would be delivered with what others say in our name
			return "reject"
		}
		return s.OnComplex
	case ambiguous:
		return s.OnAmbiguous
	case encrypted:
		return s.OnEncrypted
	case macros:
		return s.OnMacros
	case virus:
		return s.OnVirus
	case spam:
		return s.OnSpam
	case refusedByScanner, dmarcRefused:
		return "reject"
	case deferredByScanner:
		return "tempfail"
	case discardedByScanner:
		return "discard"
	case unscanned:
		return s.OnScannerFailure
	case spfFailed:
		return s.OnSPFFail
	case dmarcMarked:
		return "mark"
	case noAuthor:
		if s.OnDMARCFail == "none" {
			return "none"
		}
		return "mark"
	case uncheckedSender:
		return s.OnDNSFailure
	}
	return ""
}

// delivers reports whether a message is delivered in spite of a finding with that policy.
func delivers(policy string) bool { return policy == "none" || policy == "mark" }

// limits returns those that are set for the structure of messages.
func (s *Settings) limits() mime.Limits {
	return mime.Limits{Depth: s.MaxDepth, Parts: s.MaxParts, PartHeader: int(s.MaxPartHeader)}
}

// act does what is set for messages of that kind.
func (s *Settings) act(m *worker.Message, f *finding) {
	switch s.policy(f.kind) {
	case "none":
	case "discard":
		m.Discard()
	case "tempfail":
		m.TempFail(f.text, "451", "4.7.1")
	case "mark":
		m.AddHeader(s.MarkHeader, f.text)
	default:
		code, dsn := "554", "5.7.1"
		if status := senderStatus[f.kind]; status != "" {
			code, dsn = "550", status
		}
		m.Reject(f.text, code, dsn)
	}
}

// senderStatus are the status codes of RFC 7372.
var senderStatus = map[kind]string{spfFailed: "5.7.23", dmarcRefused: "5.7.26"}

// examine reads a message and returns what is to be acted on: the findings with which a message is marked, and the one
// with which it is not delivered. ambiguities are the ways in which mail readers may differ about it.
func (s *Settings) examine(message []byte) (ambiguities []string, findings []*finding, err error) {
	x := &examiner{Settings: s}
	ambiguities, err = x.message(message, mime.Viewer{Part: x.part, Name: x.name, Content: x.content})
	var last *finding
	if errors.As(err, &last) {
		return ambiguities, append(x.findings, last), nil
	}
	return ambiguities, x.findings, err
}

// message examines a message, of which v is told. The error may be a *finding.
func (x *examiner) message(message []byte, v mime.Viewer) (ambiguities []string, err error) {
	// The bytes as they are, whatever their structure claims.
	if err := x.read(bytes.NewReader(message), false); err != nil {
		return nil, err
	}
	ambiguities, err = mime.Walk(message, x.limits(), v)
	switch {
	case mime.IsLimit(err):
		err = x.found(tooComplex, err.Error())
	case errors.Is(err, errEnough):
		err = nil
	}
	if err == nil && len(ambiguities) > 0 {
		err = x.found(ambiguous, "mail readers differ about the message: "+strings.Join(ambiguities, ", "))
	}
	return ambiguities, err
}

// mapFile maps a regular file into memory, so that a large one need not fit. The mapping is gone after done.
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
	named    int      // bytes of names

	findings []*finding // with which the examination goes on, each once
	all      bool       // it goes on with all
}

// found notes what is found. It returns an error if the examination ends with it.
func (x *examiner) found(k kind, text string) error {
	policy := x.policy(k)
	if policy == "none" && !x.all {
		return nil
	}
	f := &finding{k, text}
	if !delivers(policy) && !x.all {
		return f
	}
	if !slices.ContainsFunc(x.findings, func(o *finding) bool { return *o == *f }) && len(x.findings) < maxFindings {
		x.findings = append(x.findings, f)
	}
	return nil
}

// enough ends the examination of a message that makes too much work, also of one that is only marked for that.
func (x *examiner) enough(text string) error {
	if err := x.found(tooComplex, text); err != nil {
		return err
	}
	return errEnough
}

// errEnough ends an examination whose findings are noted.
var errEnough = errors.New("enough is known")

// maxFindings bounds what is told of one message.
const maxFindings = 20

// part examines what a part is.
func (x *examiner) part(p *mime.Part) error {
	for _, t := range p.Types {
		if bool(x.BlockFragments) && (t == "message/partial" || t == "message/external-body") {
			return x.found(blocked, "fragmented messages are not allowed")
		}
	}
	return nil
}

// maxNames is how many bytes of names are examined. Entries that overlap may have more than the message.
const maxNames = 16 << 20

// name examines a name.
func (x *examiner) name(_ *mime.Part, name string) error {
	if x.named += len(name); x.named > maxNames {
		return x.enough("message has too many names")
	}
	if x.blockedName(name) {
		if err := x.found(blocked, "attachment name not allowed: "+show(name)); err != nil {
			return err
		}
	}
	if mayHaveMacros(name) {
		return x.found(macros, "document may have macros: "+show(name))
	}
	return nil
}

// content examines a decoded content.
func (x *examiner) content(_ *mime.Part, r io.Reader) error { return x.read(r, true) }
