package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"log/syslog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/journal"

	"postern/internal/printable"
)

// maxText bounds a message and each attribute, in bytes; maxLine a whole record
// of text for syslog or journal.
const (
	maxText = 2048
	maxLine = 8192
)

// record is one line on its way.
type record struct {
	level slog.Level
	line  []byte
	attrs int // where its attributes begin, if it is one of lineHandler: no text of the message is taken for one
}

// A sender passes one line on; the line is its own afterwards only until it returns.
type sender func(record) error

// syslogSender uses the functions that carry the level.
func syslogSender(w *syslog.Writer) sender {
	return func(r record) error {
		line := string(r.line)
		switch priority(r.level) {
		case syslog.LOG_ERR:
			return w.Err(line)
		case syslog.LOG_WARNING:
			return w.Warning(line)
		case syslog.LOG_NOTICE:
			return w.Notice(line)
		case syslog.LOG_INFO:
			return w.Info(line)
		}
		return w.Debug(line)
	}
}

// journalSender sends the attributes as fields as well, so that journalctl can choose by them: POSTERN_CLIENT for client.
func journalSender(facility syslog.Priority, tag string) sender {
	return func(r record) error {
		fields := map[string]string{
			"SYSLOG_IDENTIFIER": tag,
			"SYSLOG_FACILITY":   strconv.Itoa(int(facility >> 3)),
		}
		for key, value := range attrsOf(r) {
			if !attrName.MatchString(key) {
				continue // journal.Send would complain to standard error
			}
			fields["POSTERN_"+fieldName.Replace(strings.ToUpper(key))] = value
		}
		return journal.Send(string(r.line), journal.Priority(priority(r.level)), fields)
	}
}

var (
	attrName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,50}$`)
	fieldName = strings.NewReplacer("-", "_", ".", "_") // systemd.journal-fields(7)
)

// priority maps levels to those of syslog(3).
func priority(level slog.Level) syslog.Priority {
	switch {
	case level >= slog.LevelError:
		return syslog.LOG_ERR
	case level >= slog.LevelWarn:
		return syslog.LOG_WARNING
	case level >= LevelNotice:
		return syslog.LOG_NOTICE
	case level >= slog.LevelInfo:
		return syslog.LOG_INFO
	}
	return syslog.LOG_DEBUG
}

// lineHandler makes one line of a record: the message as it is, then the
// attributes. Time and level are left to the receiver, so that a message without
// attributes comes out as the message alone. The standard library's handlers
// write the attributes.
type lineHandler struct {
	inner slog.Handler // writes into out.buf
	json  bool
	out   *lineOutput
}

// lineOutput is what all handlers made from one share.
type lineOutput struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	send sender
}

// noMessage stands for the message where the inner handler is to leave it out.
const noMessage = "\x00"

func newLineHandler(o Options, send sender) slog.Handler {
	h := &lineHandler{json: o.Format == JSON, out: &lineOutput{send: send}}
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && isBuiltin(a) {
			return slog.Attr{}
		}
		return cut(inSeconds(a, o.Format))
	}}
	if h.json {
		h.inner = slog.NewJSONHandler(&h.out.buf, options)
	} else {
		h.inner = slog.NewTextHandler(&h.out.buf, options)
	}
	return h
}

// isBuiltin knows the level and the left out message by their values: an
// attribute of a caller may have the same name.
func isBuiltin(a slog.Attr) bool {
	if a.Key == slog.LevelKey {
		_, ok := a.Value.Any().(slog.Level)
		return ok
	}
	return a.Key == slog.MessageKey && a.Value.Kind() == slog.KindString && a.Value.String() == noMessage
}

// Enabled reports whether records of the level are wanted.
func (h *lineHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle sends a record.
func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	message := noMessage
	if h.json {
		message = r.Message
	}
	inner := slog.NewRecord(time.Time{}, r.Level, message, 0)
	r.Attrs(func(a slog.Attr) bool {
		inner.AddAttrs(a)
		return true
	})
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.buf.Reset()
	if err := h.inner.Handle(ctx, inner); err != nil {
		return err
	}
	line := bytes.TrimSuffix(h.out.buf.Bytes(), []byte("\n"))
	if h.json {
		return h.out.send(record{level: r.Level, line: printable.JSON(line)})
	}
	text := oneLine(shorten(r.Message, maxText))
	attrs := len(text)
	text = shorten(strings.TrimSuffix(text+" "+string(line), " "), maxLine)
	return h.out.send(record{level: r.Level, line: []byte(text), attrs: min(attrs, len(text))})
}

// WithAttrs returns a handler that adds the attributes to each record.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineHandler{inner: h.inner.WithAttrs(attrs), json: h.json, out: h.out}
}

// WithGroup returns a handler that puts the attributes that follow into a group.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{inner: h.inner.WithGroup(name), json: h.json, out: h.out}
}

// cut shortens the text of an attribute.
func cut(a slog.Attr) slog.Attr {
	if text := textOf(a.Value.Any()); len(text) > maxText {
		a.Value = slog.StringValue(shorten(text, maxText))
	}
	return a
}

// textOf returns the text that a value is printed as, if it can be long. Methods
// of a nil pointer may panic; the handlers of the standard library cope with that.
func textOf(v any) (text string) {
	defer func() {
		if recover() != nil {
			text = ""
		}
	}()
	switch x := v.(type) {
	case string:
		return x
	case error:
		return x.Error()
	case fmt.Stringer:
		return x.String()
	case []byte:
		return string(x)
	}
	return ""
}

// shorten cuts a text to at most limit bytes, at the border of a character.
func shorten(text string, limit int) string {
	const mark = "..."
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// oneLine escapes what a terminal or a reader could take for something else: control
// characters, marks of direction, what is not UTF-8.
func oneLine(text string) string {
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if !strings.ContainsFunc(text, bad) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if bad(r) {
			quoted := strconv.Quote(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}
