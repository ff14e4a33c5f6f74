package mime

import (
	"bytes"
	"compress/gzip"
	"io"
	"path"
	"slices"
	"strings"
)

// message walks through the whole message, and once more through what it is to readers that take a bare CR for a
// line end or do not see NUL, if it has such.
func (w *walker) message(b []byte) error {
	t := text{b: b}
	if err := w.entity(t, context{fallback: "text/plain"}); err != nil {
		return err
	}
	for _, other := range []struct {
		view string
		f    func([]byte) []byte
	}{{"a bare CR ends a line", bareCR}, {"NUL is no character", withoutNUL}} {
		if changed := other.f(b); changed != nil {
			t, err := w.newText(changed)
			if err == nil {
				err = w.entity(t, context{fallback: "text/plain", view: other.view})
			}
			if err != nil {
				return err
			}
		}
	}
	if len(w.ambiguities) > 0 {
		return w.everywhere(t)
	}
	return nil
}

// bareCR returns b with each CR that is not in front of LF replaced by LF; nil if there is none in front of the first
// line of a header.
func bareCR(b []byte) []byte {
	for i, rest := 0, b; ; {
		n := bytes.IndexByte(rest, '\r')
		if n < 0 {
			return nil
		}
		i += n
		if i+1 < len(b) && b[i+1] != '\n' {
			break
		}
		i++
		rest = b[i:]
	}
	out := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(out, []byte("\r"), []byte("\n"))
}

func withoutNUL(b []byte) []byte {
	if bytes.IndexByte(b, 0) < 0 {
		return nil
	}
	return bytes.ReplaceAll(b, []byte{0}, nil)
}

// context is what is known of a part from outside.
type context struct {
	fallback string // its type, if it does not say one
	depth    int
	view     string
}

// inner is the context of what is inside.
func (c context) inner(fallback, view string) context {
	if c.view != "" {
		view = c.view
	}
	return context{fallback, c.depth + 1, view}
}

// entity examines a message or a part: its names, then its body, in all readings of its header.
func (w *walker) entity(t text, c context) error {
	if c.depth > w.lim.Depth {
		return ErrTooDeep
	}
	if !w.once(t, "entity "+c.fallback) {
		return nil
	}
	limit := w.lim.PartHeader
	if c.depth == 0 {
		limit = len(t.b) + 1 // it has passed the limits of the mail server
	}
	h, ok := parseHeader(t.b, limit)
	if ok && h.lines == 0 && c.fallback != "message/rfc822" { // in a digest, what is there is the header of the message
		ok = h.behindBlank(t.b, limit)
	}
	if !ok {
		return ErrHeader
	}
	if err := w.spend((h.ends[0].at + 200) / 2); err != nil {
		return err
	}
	if err := w.count(t, &h, c); err != nil {
		return err
	}
	for _, view := range h.views() {
		w.differ("%s", view)
	}
	m := mediaOf(h.values(contentType), c.fallback)
	encodings, odd := encodingsOf(h.values(contentEncoding))
	for _, o := range []string{m.odd, odd} {
		if o != "" {
			w.differ("%s", o)
		}
	}
	part := &Part{Types: m.types.list, Depth: c.depth, View: c.view}
	if w.viewer.Part != nil {
		if err := w.viewer.Part(part); err != nil {
			return err
		}
	}
	names, err := w.names(part, &h)
	if err != nil {
		return err
	}
	if late, ends := lateEncodings(t.b[h.ends[0].at:]); len(late) > 0 && !m.multipart && !m.message {
		const view = "a Content-Transfer-Encoding behind the header"
		w.differ(view)
		more, _ := encodingsOf(late)
		encodings = append(slices.Clone(encodings), more...)
		for _, at := range ends {
			h.ends = append(h.ends, end{h.ends[0].at + at, view})
		}
	}
	for i, e := range h.ends {
		b := &body{part: part, media: &m, names: names, text: t.sub(e.at, len(t.b)), context: c}
		if i > 0 && b.view == "" {
			b.view = e.view
		}
		if err := w.body(b, encodings); err != nil {
			return err
		}
	}
	return nil
}

// count counts a part of the standard view, and notes one with fields that matter that only another view has.
func (w *walker) count(t text, h *header, c context) error {
	p := place{t.buffer, t.off}
	if c.view == "" {
		w.parts++
		if w.parts > w.lim.Parts {
			return ErrTooManyParts
		}
	} else if !w.begun[p] && len(h.fields) > 0 {
		w.differ("%s", c.view)
	}
	w.begun[p] = true
	return nil
}

// nameWeight is for how many bytes one of a name counts: it was decoded in several ways, and the viewer judges it.
const nameWeight = 32

// names tells the viewer all readings of the names in a header.
func (w *walker) names(part *Part, h *header) ([]string, error) {
	var all set
	for _, f := range h.fields {
		if f.kind == contentEncoding {
			continue
		}
		if len(f.value) > maxFieldBytes {
			return nil, ErrHeader
		}
		value := unfold(f.value)
		params, work := parameters(value)
		if strings.Contains(value, "=?") {
			work += len(value) * nameWeight
			for _, decoded := range decodeWords(value) { // where only names may be encoded
				more, n := parameters(decoded)
				params, work = append(params, more...), work+n
			}
		}
		if err := w.spend(work); err != nil {
			return nil, err
		}
		for _, key := range []string{"filename", "name"} {
			for _, raw := range readings(params, key) {
				all.add(w.nameReadings(raw)...)
			}
		}
	}
	for _, n := range all.list {
		if err := w.spend(len(n) * nameWeight); err != nil {
			return nil, err
		}
		if err := w.name(part, n); err != nil {
			return nil, err
		}
	}
	return all.list, nil
}

func (w *walker) name(part *Part, name string) error {
	if w.viewer.Name == nil || name == "" {
		return nil
	}
	return w.viewer.Name(part, name)
}

// unfold removes the line ends of a folded field, not the white space behind them.
func unfold(value []byte) string {
	if bytes.IndexByte(value, '\n') < 0 {
		return string(value)
	}
	return strings.NewReplacer("\r\n", "", "\n", "").Replace(string(value))
}

// body is what follows the header of a part.
type body struct {
	part  *Part
	media *media
	names []string
	text
	context
}

// body examines the body of a part in all readings of its type and encoding.
func (w *walker) body(b *body, encodings []transferEncoding) error {
	isLeaf := b.media.leaf
	if b.media.multipart {
		found, err := w.multipart(b)
		if err != nil {
			return err
		}
		isLeaf = isLeaf || !found
		if err := w.encodedMultipart(b, encodings); err != nil {
			return err
		}
	}
	if b.media.message {
		if err := w.attached(b, encodings); err != nil {
			return err
		}
	}
	if isLeaf {
		return w.leaf(b, encodings)
	}
	return nil
}

// encodedMultipart examines a multipart that has an encoding, which it must not (RFC 2045, 6.4) and some decode.
func (w *walker) encodedMultipart(b *body, encodings []transferEncoding) error {
	for _, e := range encodings {
		if e == identity || !w.once(b.text, "multipart in an encoding "+string(rune('0'+e))) {
			continue
		}
		t, err := w.decode(b.text, e)
		if err != nil {
			return err
		}
		if len(t.b) == 0 {
			continue
		}
		w.differ("a multipart in an encoding")
		inner := *b
		inner.text, inner.view = t, "a multipart in an encoding"
		if _, err := w.multipart(&inner); err != nil {
			return err
		}
	}
	return nil
}

// attached examines an attached message. Some readers decode one that is encoded.
func (w *walker) attached(b *body, encodings []transferEncoding) error {
	for _, e := range encodings {
		t := b.text
		if e != identity {
			var err error
			if t, err = w.decode(t, e); err != nil {
				return err
			}
		}
		if err := w.entity(t, b.inner("text/plain", "")); err != nil {
			return err
		}
	}
	if encodings[0] != identity {
		return w.entity(b.text, b.inner("text/plain", "an attached message in an encoding"))
	}
	return nil
}

// leaf examines the content of a part that has no parts.
func (w *walker) leaf(b *body, encodings []transferEncoding) error {
	if len(b.b) == 0 {
		return nil
	}
	if mayBeMessage(b) {
		for _, e := range encodings {
			if err := w.message822(b, e); err != nil {
				return err
			}
		}
	}
	for _, e := range encodings {
		if err := w.content(b, e); err != nil {
			return err
		}
	}
	return nil
}

// mayBeMessage reports whether a part is one that some readers open as a message although its type says something
// else: by its name, or as data of no particular type.
func mayBeMessage(b *body) bool {
	for _, t := range b.media.types.list {
		if t == "application/octet-stream" || t == "text/rfc822-headers" || t == "application/eml" || strings.Contains(t, "rfc822") {
			return true
		}
	}
	for _, n := range b.names {
		switch strings.ToLower(path.Ext(strings.TrimRight(n, ". \""))) {
		case ".eml", ".mht", ".mhtml", ".nws", ".mbox", ".msg":
			return true
		}
	}
	return false
}

// message822 examines a content as a message if it begins like one.
func (w *walker) message822(b *body, e transferEncoding) error {
	is, err := w.looksLikeMessage(b.text, e)
	if err != nil || !is {
		return err
	}
	t := b.text
	if e != identity {
		if t, err = w.decode(t, e); err != nil {
			return err
		}
	}
	return w.entity(t, b.inner("text/plain", ""))
}

// looksLikeMessage reports whether a content begins with fields of a message. It reads on where the first few lines do
// not tell, as with a header whose first field is large.
func (w *walker) looksLikeMessage(t text, e transferEncoding) (bool, error) {
	for _, n := range []int{2 << 10, 8 << 20} {
		start, all, err := w.decodeSome(t, e, n)
		if err != nil {
			return false, err
		}
		if is, sure := beginsLikeMessage(start, all); sure {
			return is, nil
		}
	}
	w.differ("a file that may be a message")
	return false, nil
}

// beginsLikeMessage reports whether the first lines are fields, one at least of those that messages have; sure is false
// if b is not all, and does not tell.
func beginsLikeMessage(b []byte, all bool) (is, sure bool) {
	for pos, lines := 0, 0; pos < len(b) && !(is && lines >= 50); lines++ {
		line, next := lineAt(b, pos)
		cut := next == len(b) && !all
		if len(line) == 0 {
			break
		}
		name, colon := fieldName(bytes.TrimPrefix(line, []byte("\ufeff")))
		switch {
		case colon < 0 && line[0] != ' ' && line[0] != '\t' && !(pos == 0 && isMbox(line)):
			return false, !cut || len(line) > 1000 // no name is as long as that
		case colon > 0:
			switch strings.ToLower(string(name)) {
			case "from", "to", "subject", "date", "received", "message-id", "mime-version", "content-type", "return-path",
				"delivered-to", "content-transfer-encoding", "content-disposition", "x-mailer", "cc", "reply-to", "sender":
				is = true
			}
		}
		if cut {
			return is, is
		}
		pos = next
	}
	return is, true
}

// content shows the decoded content of a part, in all readings of the encoding.
func (w *walker) content(b *body, e transferEncoding) error {
	if !w.once(b.text, "content "+string(rune('0'+e))) {
		return nil
	}
	switch e {
	case identity:
		if err := w.show(b.part, b.b); err != nil {
			return err
		}
		return w.inline(b.part, b.text)
	case base64Encoding:
		return w.base64Content(b)
	case quotedPrintable:
		return w.quotedContent(b)
	case gzip64:
		decoded, err := w.decode(b.text, base64Encoding)
		if err != nil {
			return err
		}
		if z, err := gzip.NewReader(bytes.NewReader(decoded.b)); err == nil {
			return w.stream(b.part, &metered{w, z})
		}
		return w.show(b.part, decoded.b)
	default:
		t, err := w.decode(b.text, e)
		if err != nil {
			return err
		}
		if err := w.show(b.part, t.b); err != nil {
			return err
		}
		return w.inline(b.part, b.text)
	}
}

func (w *walker) base64Content(b *body) error {
	r := &base64Reader{src: b.b}
	if err := w.reader(b.part, r, len(b.b)); err != nil {
		return err
	}
	// To know what is in it, it must have been read to its end.
	_, _ = io.Copy(io.Discard, r)
	if r.seen.padInside {
		if err := w.reader(b.part, &base64Reader{src: b.b, mode: base64IgnorePad}, len(b.b)); err != nil {
			return err
		}
	}
	if r.seen.urlChars {
		if err := w.reader(b.part, &base64Reader{src: b.b, mode: base64URL}, len(b.b)); err != nil {
			return err
		}
	}
	return w.encodedInline(b)
}

// encodedInline looks for files in the text that base64 is, which is none if it says something in the clear.
func (w *walker) encodedInline(b *body) error {
	if bytes.Contains(b.b, []byte("\nbegin ")) || bytes.Contains(b.b, []byte("=ybegin ")) {
		return w.inline(b.part, b.text)
	}
	return nil
}

func (w *walker) quotedContent(b *body) error {
	if err := w.quotedReadings(b, b.b); err != nil {
		return err
	}
	// Text has white space in it, which means nothing in a file.
	if len(b.names) > 0 || !strings.HasPrefix(b.media.types.list[0], "text/") {
		if err := w.spend(len(b.b)); err != nil {
			return err
		}
		if err := w.quotedReadings(b, printable(b.b)); err != nil {
			return err
		}
	}
	// Files inside the text show only when it is decoded.
	if bytes.Contains(b.b, []byte("begin")) || bytes.Contains(b.b, []byte("=3D")) && bytes.Contains(b.b, []byte("ybegin")) {
		t, err := w.decode(b.text, quotedPrintable)
		if err != nil {
			return err
		}
		return w.inline(b.part, t)
	}
	return nil
}

// quotedReadings shows what quoted-printable decodes to, with broken escapes shown, or dropped with up to two bytes
// behind them.
func (w *walker) quotedReadings(b *body, src []byte) error {
	r := &quotedReader{src: src}
	for drop := 1; ; drop++ {
		if err := w.reader(b.part, r, len(src)); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, r) // to know what is in it, it must have been read to its end
		if !r.broken || drop > 3 {
			return nil
		}
		r = &quotedReader{src: src, drop: drop}
	}
}

// show shows bytes as a content.
func (w *walker) show(part *Part, b []byte) error {
	return w.reader(part, bytes.NewReader(b), len(b)/2)
}

// reader shows what r gives as a content, for that much work.
func (w *walker) reader(part *Part, r io.Reader, work int) error {
	if err := w.spend(work); err != nil {
		return err
	}
	return w.stream(part, r)
}

func (w *walker) stream(part *Part, r io.Reader) error {
	if w.viewer.Content == nil {
		return nil
	}
	return w.viewer.Content(part, r)
}

// metered counts what is read from it as work.
type metered struct {
	w *walker
	r io.Reader
}

// Read ends early, without an error, where the compressed data does.
func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if limit := m.w.spend(n); limit != nil {
		return n, limit
	}
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// decode decodes a text whole.
func (w *walker) decode(t text, e transferEncoding) (text, error) {
	if err := w.spend(len(t.b)); err != nil {
		return text{}, err
	}
	var out []byte
	switch e {
	case base64Encoding, gzip64:
		out, _ = decodeBase64(t.b, base64Restarts)
	case quotedPrintable:
		out = decodeQuotedPrintable(t.b, 0)
	case uuencode:
		out = decodeUU(t.b)
	case yenc:
		out = decodeYEnc(t.b)
	case binhex:
		var err error
		if _, out, _, err = w.binhex(t.b); err != nil {
			return text{}, err
		}
	default:
		return t, nil
	}
	return w.newText(out)
}

// decodeSome decodes the first n bytes or so; all says that there are no more.
func (w *walker) decodeSome(t text, e transferEncoding, n int) (b []byte, all bool, err error) {
	all = len(t.b) <= 2*n
	t.b = t.b[:min(len(t.b), 2*n)]
	if e == identity {
		return t.b, all, nil
	}
	some, err := w.decode(t, e)
	w.decoded -= int64(len(some.b)) // it is not kept
	return some.b, all, err
}
