package held

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"os"
	"strings"
	"time"

	"postern/smtp-proxy/filter"
)

// Fields in front of a message, in this order. Those of the envelope come from the delivery into the Maildir.
const (
	fieldFrom   = "Return-Path:"
	fieldTo     = "Delivered-To:" // one for each recipient
	fieldReason = filter.HoldField + ":"
)

// maxHead bounds what is read of a message for its envelope and subject, in bytes.
const maxHead = 4 << 20

// Message is a message that is held. Its texts are as they came: they are to be made fit for where they are shown.
type Message struct {
	ID      string
	Held    time.Time
	Size    int64 // bytes of the file
	From    string
	To      []string
	Reason  string // why it is held
	Subject string // decoded
	UTF8    bool   // it came with SMTPUTF8
	// Err says why the file is not one that the proxy has held. Only what is above it is known then.
	Err error

	box   *Box
	place string // where it was found, and under which name
	name  string
	file  *os.File
	begin int64 // of the message as the next hop would have got it
}

// read opens a file.
func (b *Box) read(place, name string) (*Message, error) {
	dir, err := b.dir(place)
	if err != nil {
		return nil, err
	}
	file, err := dir.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	m := &Message{ID: idOf(name), Held: info.ModTime(), Size: info.Size(), box: b, place: place, name: name, file: file}
	m.Err = m.head(io.NewSectionReader(file, 0, min(m.Size, maxHead)))
	return m, nil
}

// Close gives the message back.
func (m *Message) Close() error { return m.file.Close() }

// Content returns the message as the next hop would have got it, but for its line ends, which are LF.
func (m *Message) Content() io.Reader { return io.NewSectionReader(m.file, m.begin, m.Size-m.begin) }

var (
	errForeign = errors.New("not held by smtp-proxy: Return-Path, Delivered-To and " + filter.HoldField + " are not on top of it")
	errEnds    = errors.New("its header is too long, or is cut off")
)

// head reads the envelope, the reason and the subject.
func (m *Message) head(r io.Reader) error {
	lines := fields{r: bufio.NewReader(r)}
	from, _ := lines.next(fieldFrom)
	from, ok := strings.CutPrefix(from, "<")
	if !ok || !strings.HasSuffix(from, ">") {
		return errForeign
	}
	m.From = strings.TrimSuffix(from, ">")
	for {
		to, ok := lines.next(fieldTo)
		if !ok {
			break
		}
		m.To = append(m.To, to)
	}
	if m.Reason, ok = lines.next(fieldReason); !ok || len(m.To) == 0 {
		return errForeign
	}
	m.begin = lines.offset
	for ours := true; ; { // the topmost Received is; a filter may have put other fields above it
		field, err := lines.take()
		if err != nil {
			return errEnds
		}
		if len(field) == 0 {
			return nil
		}
		if received, ok := cutName(field, "Received:"); ok && ours {
			m.UTF8, ours = strings.Contains(received, " with UTF8SMTP"), false // RFC 6531, 4.3
		}
		if subject, ok := cutName(field, "Subject:"); ok && m.Subject == "" {
			m.Subject = decoded(subject)
		}
	}
}

// fields reads the fields of a header.
type fields struct {
	r      *bufio.Reader
	offset int64 // behind the fields that were taken

	ahead []byte // the next one, if it was looked at
	size  int64  // its bytes; 0 if it was not
}

// look returns the next field without its line ends; it is empty at the end of the header.
func (f *fields) look() ([]byte, error) {
	for f.size == 0 || len(f.ahead) > 0 && f.folded() {
		line, err := f.r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		f.size += int64(len(line))
		f.ahead = append(f.ahead, bytes.TrimRight(line, "\r\n")...)
	}
	return f.ahead, nil
}

// folded reports whether the field goes on.
func (f *fields) folded() bool {
	next, err := f.r.Peek(1)
	return err == nil && (next[0] == ' ' || next[0] == '\t')
}

// take is look, and goes on to the field behind.
func (f *fields) take() ([]byte, error) {
	field, err := f.look()
	f.offset, f.ahead, f.size = f.offset+f.size, nil, 0
	return field, err
}

// next takes the next field if it has that name, which ends in a colon, and returns its value.
func (f *fields) next(name string) (value string, ok bool) {
	field, err := f.look()
	if err != nil {
		return "", false
	}
	if value, ok = cutName(field, name); ok {
		_, _ = f.take()
	}
	return value, ok
}

func cutName(field []byte, name string) (value string, ok bool) {
	if len(field) < len(name) || !strings.EqualFold(string(field[:len(name)]), name) {
		return "", false
	}
	return strings.Trim(string(field[len(name):]), " \t"), true
}

// decoded returns a text without encoded words: RFC 2047.
func decoded(text string) string {
	var d mime.WordDecoder
	if plain, err := d.DecodeHeader(text); err == nil {
		return plain
	}
	return text
}
