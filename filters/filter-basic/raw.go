package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
)

// anyHeader looks through a whole message for lines that begin like a Content-Type or Content-Disposition field,
// and for lines that look like base64, whatever the structure says of where they stand.
func (x *examiner) anyHeader(r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var field []byte // the field that is being read, with its further lines
	fresh := true    // the next piece begins a line
	encoded := base64Lines{to: x.sniffer(true)}
	for {
		piece, err := br.ReadSlice('\n')
		if found := encoded.line(piece); found != nil {
			return found
		}
		if fresh && len(piece) > 0 {
			if folded := piece[0] == ' ' || piece[0] == '\t'; !folded || field == nil {
				if found := x.endField(field); found != nil {
					return found
				}
				field = nil
				if isContentField(piece) {
					field = []byte{}
				}
			}
		}
		if field != nil && len(field) < int(x.MaxPartHeader) {
			field = append(field, piece...)
		}
		fresh = err == nil
		if err != nil && err != bufio.ErrBufferFull {
			if found := x.endField(field); found != nil {
				return found
			}
			if err == io.EOF {
				err = encoded.end()
			}
			return err
		}
	}
}

func isContentField(line []byte) bool {
	name, _, ok := bytes.Cut(line[:min(len(line), 40)], []byte(":"))
	name = bytes.TrimRight(name, " \t")
	return ok && (bytes.EqualFold(name, []byte("Content-Type")) || bytes.EqualFold(name, []byte("Content-Disposition")))
}

func (x *examiner) endField(field []byte) error {
	if len(field) == 0 {
		return nil
	}
	_, value, _ := bytes.Cut(field, []byte(":"))
	value = bytes.ReplaceAll(bytes.ReplaceAll(value, []byte("\r"), nil), []byte("\n"), nil)
	return x.names([]string{string(value)})
}

// base64Lines decodes runs of lines that look like base64.
type base64Lines struct {
	to   *sniffer
	rest []byte // fewer than four characters, not decoded yet
}

// line takes the next line, or piece of a long one.
func (b *base64Lines) line(piece []byte) error {
	text := bytes.TrimRight(piece, "\r\n")
	for _, c := range text {
		if !isBase64(c) {
			return b.end()
		}
	}
	if len(text) == 0 {
		return b.end()
	}
	b.rest = append(b.rest, bytes.TrimRight(text, "=")...)
	whole := len(b.rest) / 4 * 4
	if err := b.decode(b.rest[:whole]); err != nil {
		return err
	}
	b.rest = append(b.rest[:0], b.rest[whole:]...)
	return nil
}

func (b *base64Lines) decode(text []byte) error {
	// Words of plain text look like base64 as well, so what cannot be decoded is no error.
	decoded, _ := base64.RawStdEncoding.AppendDecode(nil, text)
	_, err := b.to.Write(decoded)
	return err
}

// end ends a run.
func (b *base64Lines) end() error {
	if len(b.rest) == 0 && len(b.to.buf) == 0 {
		return nil
	}
	err := b.decode(b.rest)
	b.rest = b.rest[:0]
	if err != nil {
		return err
	}
	return b.to.end()
}
