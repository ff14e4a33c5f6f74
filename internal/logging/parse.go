package logging

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Line is a record as who reads a log gets it.
type Line struct {
	Time    time.Time // zero if the line does not say
	Program string    // name in syslog or journal; empty if the line does not say
	Message string
	Attrs   map[string]string // times in seconds, or as 1.5s
}

var (
	// A line of a syslog file, or of journalctl with -o short and its like: time, host, program, message.
	syslogLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\S+|[A-Z][a-z]{2} [ \d]\d [\d:.]+|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \S+ \S+|\d+\.\d+|\[ *[\d.]+\]) (?:\S+ )?([^\s:\[]+)(?:\[\d+\])?: (.*)$`)
	// The first attribute of a text.
	firstAttr = regexp.MustCompile(`(?:^| )[A-Za-z][\w.-]*=`)
)

// ParseLine reads a line of a log, in each form that there is: text or JSON, as written to standard error, by syslog, by
// journalctl with -o short and its like or cat, and with -o json. A time without a year is of the last twelve months before
// now. A text that is none of ours is a message.
func ParseLine(text string, now time.Time) Line {
	if strings.HasPrefix(text, "{") {
		if l, ok := parseExport(text, now); ok {
			return l
		}
	} else if m := syslogLine.FindStringSubmatch(text); m != nil {
		l := parseRecord(m[3], now)
		l.Time, l.Program = parseTime(m[1], now), strings.TrimSuffix(m[2], ".service")
		return l
	}
	return parseRecord(text, now)
}

// parseRecord reads what we have written.
func parseRecord(text string, now time.Time) Line {
	if strings.HasPrefix(text, "{") {
		return parseJSON(text, now)
	}
	message, attrs := splitText(text)
	if at, ok := attrs["time"]; ok && message == "" {
		l := Line{Time: parseTime(at, now), Message: attrs["msg"], Attrs: attrs}
		delete(attrs, "time")
		delete(attrs, "level")
		delete(attrs, "msg")
		return l
	}
	return Line{Message: message, Attrs: attrs}
}

// attrsOf returns the attributes of a record of lineHandler.
func attrsOf(r record) map[string]string {
	text := string(r.line[r.attrs:])
	if strings.HasPrefix(text, "{") {
		return parseJSON(text, time.Time{}).Attrs
	}
	_, attrs := splitText(text)
	return attrs
}

// parseTime returns the zero time for what it does not know.
func parseTime(text string, now time.Time) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05-0700", "Mon 2006-01-02 15:04:05 MST"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t
		}
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		if !(s >= 0 && s < 1e11) { // of the first 3000 years, as others cannot be written
			return time.Time{}
		}
		return time.UnixMicro(int64(s * 1e6))
	}
	t, err := time.ParseInLocation("2006 Jan _2 15:04:05", fmt.Sprint(now.Year(), " ", text), now.Location())
	switch {
	case err != nil:
		return time.Time{}
	case t.After(now.Add(24 * time.Hour)): // of December, read in January
		return t.AddDate(-1, 0, 0)
	}
	return t
}

// splitText divides a line that lineHandler or the standard library's handler has written. A line that was cut may have
// lost the end of its last value.
func splitText(text string) (message string, attrs map[string]string) {
	attrs = map[string]string{}
	at := firstAttr.FindStringIndex(text)
	if at == nil {
		return text, attrs
	}
	message, text = text[:at[0]], text[at[0]:]
	for {
		key, rest, ok := strings.Cut(strings.TrimLeft(text, " "), "=")
		if !ok {
			return message, attrs
		}
		value, more, _ := strings.Cut(rest, " ")
		if strings.HasPrefix(rest, `"`) {
			value, more = rest[1:], ""
			if quoted, err := strconv.QuotedPrefix(rest); err == nil {
				value, _ = strconv.Unquote(quoted)
				more = rest[len(quoted):]
			}
		}
		if _, twice := attrs[key]; !twice {
			attrs[key] = value
		}
		text = more
	}
}

// parseExport reads an object of journalctl.
func parseExport(text string, now time.Time) (l Line, ok bool) {
	var object struct {
		Message *string `json:"MESSAGE"`
		Program string  `json:"SYSLOG_IDENTIFIER"`
		Time    string  `json:"__REALTIME_TIMESTAMP"` // in microseconds
	}
	if json.Unmarshal([]byte(text), &object) != nil || object.Message == nil {
		return l, false
	}
	l = parseRecord(*object.Message, now)
	l.Program = object.Program
	if us, err := strconv.ParseInt(object.Time, 10, 64); err == nil {
		l.Time = time.UnixMicro(us)
	}
	return l, true
}

// parseJSON reads an object of ours.
func parseJSON(text string, now time.Time) Line {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return Line{Message: text}
	}
	l := Line{Attrs: map[string]string{}}
	for key, value := range object {
		switch v := value.(type) {
		case string:
			l.Attrs[key] = v
		case float64:
			l.Attrs[key] = strconv.FormatFloat(v, 'f', -1, 64)
		case bool:
			l.Attrs[key] = strconv.FormatBool(v)
		}
	}
	l.Message, l.Time = l.Attrs["msg"], parseTime(l.Attrs["time"], now)
	delete(l.Attrs, "msg")
	delete(l.Attrs, "time")
	delete(l.Attrs, "level")
	return l
}
