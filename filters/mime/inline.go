package mime

import (
	"bytes"
)

// inline looks for files in a text that readers offer as attachments: uuencoded, yEnc and BinHex.
func (w *walker) inline(part *Part, t text) error {
	if err := w.spend(len(t.b) / scanWeight); err != nil {
		return err
	}
	for _, f := range []func(*Part, text) error{w.uuencoded, w.yencoded, w.binhexed} {
		if err := f(part, t); err != nil {
			return err
		}
	}
	return nil
}

// file shows a name and a content that were found in a text.
func (w *walker) file(part *Part, name []byte, content []byte) error {
	if len(name) > maxFieldBytes {
		return ErrWork
	}
	for _, n := range w.nameReadings(string(bytes.TrimSpace(name))) {
		if err := w.name(part, n); err != nil {
			return err
		}
	}
	return w.show(part, content)
}

// lines calls f for each line of t that begins with prefix, with what follows in the line, and behind it. f returns
// how much of that it has taken.
func (w *walker) lines(t text, prefix string, f func(line, behind []byte) (int, error)) error {
	for rest := t.b; ; {
		i := bytes.Index(rest, []byte(prefix))
		if i < 0 {
			return nil
		}
		begins := i > 0 && rest[i-1] == '\n' || i == 0 && len(rest) == len(t.b)
		line, next := lineAt(rest, i)
		if !begins {
			rest = rest[i+1:]
			continue
		}
		taken, err := f(line[len(prefix):], rest[next:])
		if err != nil {
			return err
		}
		if next+taken == 0 {
			return nil
		}
		// The line end stays, so that a line right behind is seen to begin there.
		rest = rest[next+taken-1:]
	}
}

// uuencoded finds "begin 644 name".
func (w *walker) uuencoded(part *Part, t text) error {
	return w.lines(t, "begin", func(line, behind []byte) (int, error) {
		line, base64 := bytes.CutPrefix(line, []byte("-base64"))
		mode, name, ok := bytes.Cut(bytes.TrimLeft(line, " \t"), []byte(" "))
		if !ok || len(line) == 0 || line[0] != ' ' || len(mode) < 3 || len(mode) > 6 || len(bytes.Trim(mode, "01234567")) > 0 {
			return 0, nil
		}
		end := len(behind)
		for _, last := range []string{"\nend", "\n===="} {
			if i := bytes.Index(behind[:end], []byte(last)); i >= 0 {
				end = i + 1
			}
		}
		if err := w.spend(end); err != nil {
			return 0, err
		}
		var content []byte
		if base64 {
			content, _ = decodeBase64(behind[:end], base64Restarts)
		} else {
			content = decodeUU(behind[:end])
		}
		return end, w.file(part, name, content)
	})
}

// decodeUU decodes lines of uuencoded text, from behind "begin" if that is there, leniently: a line may be too short.
func decodeUU(b []byte) []byte {
	out := make([]byte, 0, len(b)/4*3)
	for pos := 0; pos < len(b); {
		line, next := lineAt(b, pos)
		pos = next
		if len(line) == 0 || bytes.HasPrefix(line, []byte("begin ")) {
			continue
		}
		if bytes.Equal(line, []byte("end")) {
			break
		}
		n := int(line[0]-' ') & 63
		for group := line[1:]; n > 0 && len(group) > 0; n -= 3 {
			var v [4]byte
			for i := range v {
				if i < len(group) {
					v[i] = (group[i] - ' ') & 63
				}
			}
			bytes3 := [3]byte{v[0]<<2 | v[1]>>4, v[1]<<4 | v[2]>>2, v[2]<<6 | v[3]}
			out = append(out, bytes3[:min(n, 3)]...)
			group = group[min(len(group), 4):]
		}
	}
	return out
}

// yencoded finds "=ybegin line=128 size=1 name=x".
func (w *walker) yencoded(part *Part, t text) error {
	return w.lines(t, "=ybegin ", func(line, behind []byte) (int, error) {
		_, name, ok := bytes.Cut(line, []byte("name="))
		if !ok {
			return 0, nil
		}
		end := len(behind)
		if i := bytes.Index(behind, []byte("\n=yend")); i >= 0 {
			end = i + 1
		}
		if err := w.spend(end); err != nil {
			return 0, err
		}
		return end, w.file(part, name, decodeYEnc(behind[:end]))
	})
}

func decodeYEnc(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for pos := 0; pos < len(b); {
		line, next := lineAt(b, pos)
		pos = next
		if bytes.HasPrefix(line, []byte("=y")) {
			continue
		}
		for i := 0; i < len(line); i++ {
			c := line[i]
			if c == '=' && i+1 < len(line) {
				i++
				c = line[i] - 64
			}
			out = append(out, c-42)
		}
	}
	return out
}

// binhexed finds "(This file must be converted with BinHex 4.0)".
func (w *walker) binhexed(part *Part, t text) error {
	return w.lines(t, "(This file must be converted with BinHex", func(_, behind []byte) (int, error) {
		name, content, taken, err := w.binhex(behind)
		if err != nil || name == nil {
			return 0, err // the next such line may be the right one
		}
		return taken, w.file(part, name, content)
	})
}

// binhexAlphabet is that of BinHex 4.0 (RFC 1741, appendix A).
const binhexAlphabet = "!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr"

var binhexValues = func() (t [256]byte) {
	for i := range t {
		t[i] = noChar
	}
	for i, c := range []byte(binhexAlphabet) {
		t[c] = byte(i)
	}
	return t
}()

// binhex returns the name and the data fork of the file behind the first colon, which must be near, nil if there is
// none; and how many bytes it took.
func (w *walker) binhex(b []byte) (name, content []byte, taken int, err error) {
	const near = 1000
	start := bytes.IndexByte(b[:min(len(b), near)], ':')
	if start < 0 {
		if len(b) > near {
			w.differ("a BinHex file that begins late")
		}
		return nil, nil, 0, nil
	}
	taken = len(b)
	if end := bytes.IndexByte(b[start+1:], ':'); end >= 0 {
		taken = start + 1 + end
	}
	if err := w.spend(taken); err != nil {
		return nil, nil, 0, err
	}
	d, ok := expandRuns(sixBits(b[start+1 : taken]))
	if !ok {
		return nil, nil, 0, ErrWork
	}
	if len(d) == 0 || len(d) < int(d[0])+20 {
		return nil, nil, taken, nil
	}
	n := int(d[0])
	name, d = d[1:1+n], d[1+n:]
	// A zero, type, creator, flags, the lengths of both forks and a checksum.
	size := int(d[11])<<24 | int(d[12])<<16 | int(d[13])<<8 | int(d[14])
	if len(d) < 21 {
		return name, nil, taken, nil
	}
	d = d[21:]
	return name, d[:min(max(size, 0), len(d))], taken, nil
}

// sixBits puts the bits of the characters together.
func sixBits(b []byte) []byte {
	var out []byte
	acc, n := uint32(0), 0
	for _, c := range b {
		v := binhexValues[c]
		if v == noChar {
			continue
		}
		acc, n = acc<<6|uint32(v), n+6
		if n >= 8 {
			n -= 8
			out = append(out, byte(acc>>n))
		}
	}
	return out
}

// expandRuns expands byte, 0x90, count; ok is false if that gives very much.
func expandRuns(b []byte) (out []byte, ok bool) {
	const mark = 0x90
	most := 4*len(b) + 1<<20
	out = make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if len(out) >= most {
			return nil, false
		}
		if b[i] != mark || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		switch {
		case b[i] == 0:
			out = append(out, mark)
		case len(out) > 0:
			out = append(out, bytes.Repeat(out[len(out)-1:], int(b[i])-1)...)
		}
	}
	return out, true
}
