package mime

import "bytes"

// everywhere is the last view of a message about which readers differ: every line of it that looks like a field with
// a name counts as one, and every run of lines that look like base64 as content.
func (w *walker) everywhere(t text) error {
	if err := w.spend(2 * len(t.b)); err != nil {
		return err
	}
	part := &Part{View: "any line"}
	for pos := 0; pos < len(t.b); {
		line, next := lineAt(t.b, pos)
		next, err := w.fieldAnywhere(part, t.b, pos, next, line)
		if err != nil {
			return err
		}
		pos = next
	}
	return w.base64Anywhere(part, t.b)
}

// fieldAnywhere takes the line for a field if it looks like one.
func (w *walker) fieldAnywhere(part *Part, b []byte, pos, next int, line []byte) (int, error) {
	trimmed := bytes.TrimLeft(line[:min(len(line), 200)], " \t\ufeff")
	name, colon := fieldName(trimmed)
	if colon < 0 {
		return next, nil
	}
	k, _ := whichField(name)
	if k != contentType && k != contentDisposition {
		return next, nil
	}
	for next < len(b) && (b[next] == ' ' || b[next] == '\t') {
		_, next = lineAt(b, next)
	}
	start := pos + len(line) - len(bytes.TrimLeft(line, " \t\ufeff")) + colon + 1
	h := header{fields: []field{{kind: k, value: bytes.TrimRight(b[start:next], "\r\n")}}}
	_, err := w.names(part, &h)
	return next, err
}

// minRun is how many bytes of base64 may hide something.
const minRun = 32

// base64Anywhere decodes each run of lines that have only characters of base64 in them.
func (w *walker) base64Anywhere(part *Part, b []byte) error {
	start := 0
	for pos := 0; pos <= len(b); {
		line, next := []byte(nil), len(b)+1
		if pos < len(b) {
			line, next = lineAt(b, pos)
		}
		if len(line) > 0 && isBase64(line) {
			pos = next
			continue
		}
		if pos-start >= minRun {
			if err := w.reader(part, &base64Reader{src: b[start:min(pos, len(b))]}, pos-start); err != nil {
				return err
			}
		}
		start, pos = next, next
	}
	return nil
}

func isBase64(line []byte) bool {
	for _, c := range line {
		if base64Values[c] == noChar {
			return false
		}
	}
	return true
}
