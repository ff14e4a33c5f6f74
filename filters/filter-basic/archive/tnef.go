package archive

import (
	"bytes"
	"encoding/binary"
)

// Attributes of TNEF (MS-OXTNEF, 2.1.3).
const (
	attachmentTitle      = 0x00018010
	attachmentData       = 0x0006800f
	attachmentProperties = 0x00069005
	messageProperties    = 0x00069003
)

// maxEmbedded bounds the messages that are looked for in properties.
const maxEmbedded = 16

// tnef looks into winmail.dat: attachments, their names and contents, and messages in it.
func tnef(b []byte, seen *Seen) error { return tnefAt(b, seen, new(int)) }

func tnefAt(b []byte, seen *Seen, embedded *int) error {
	r := &reader{b: b}
	r.take(6) // signature and key
	for len(r.b) > 9 {
		r.byte() // level
		id, size := r.uint32(), r.uint32()
		data := r.take(min(size, uint64(len(r.b))))
		r.take(min(2, uint64(len(r.b)))) // checksum
		var err error
		switch id {
		case attachmentTitle:
			err = seen.names(string(data))
		case attachmentData:
			if len(data) > 0 {
				err = seen.Content(data)
			}
		case attachmentProperties, messageProperties:
			if err = propertyNames(data, seen); err == nil {
				err = embeddedMessages(data, seen, embedded)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// propertyNames tells the values of the properties that are names: PidTagAttachFilename and PidTagAttachLongFilename,
// in UTF-16 or another character set (MS-OXPROPS). They are looked for, whatever stands in front of them.
func propertyNames(b []byte, seen *Seen) error {
	for _, property := range []uint16{0x3704, 0x3707} {
		for _, kind := range []uint16{0x1e, 0x1f} {
			tag := binary.LittleEndian.AppendUint16(nil, kind)
			tag = binary.LittleEndian.AppendUint16(tag, property)
			for rest := b; ; {
				i := bytes.Index(rest, tag)
				if i < 0 {
					break
				}
				r := &reader{b: rest[i+len(tag):]}
				rest = r.b
				r.uint32() // how many values
				value := r.take(r.uint32())
				name := string(value)
				if kind == 0x1f {
					name = utf16Text(value, binary.LittleEndian)
				}
				if err := seen.names(name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// embeddedMessages looks into attached messages, which are TNEF again.
func embeddedMessages(b []byte, seen *Seen, embedded *int) error {
	for {
		i := bytes.Index(b, []byte("\x78\x9f\x3e\x22"))
		if i < 0 {
			return nil
		}
		if *embedded++; *embedded > maxEmbedded {
			return ErrUnreadable
		}
		if err := tnefAt(b[i:], seen, embedded); err != nil {
			return err
		}
		b = b[i+4:]
	}
}
