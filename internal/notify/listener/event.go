package listener

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/internal/notify"
)

// A Kind says what an Event is about.
type Kind int

const (
	Happened Kind = iota // the message was just published, or is a replayed one
	State                // the message is part of a snapshot: so it stands now
	Lost                 // messages are missing here: Event.Lost, as far as the daemon knows
	Live                 // the snapshot is complete
	Up                   // the connection stands, first or again: Event.Extended says which form it has
	Down                 // the connection is lost: Event.Err
	Other                // a line that is none of these; only Event.Text is set
)

// String returns the word for the kind in logs and in JSON.
func (k Kind) String() string {
	switch k {
	case Happened:
		return "event"
	case State:
		return "state"
	case Lost:
		return "lost"
	case Live:
		return "live"
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "other"
}

// An Event is something a listener learns.
type Event struct {
	Kind           Kind
	Source         string    // the name of the daemon, as given to the client
	Seq            uint64    // number of the message, or of the last one before a snapshot; 0 from an original multiplexor
	Time           time.Time // of the message if the daemon says it, else of reading
	notify.Message           // of Happened and State; Text alone of Other
	Lost           uint64    // of Lost: how many messages
	Run            uint64    // of Up: which run of the daemon, 0 if unknown
	Extended       bool      // of Up
	Err            error     // of Down
}

// Line returns what a classic listener would have read.
func (e *Event) Line() string {
	switch e.Kind {
	case Happened, State:
		return wire(e.Message)
	case Lost:
		return notify.LineLost + strconv.FormatUint(e.Lost, 10)
	case Live:
		return notify.LineLive + strconv.FormatUint(e.Seq, 10)
	}
	return e.Text
}

// wire is the message with its text byte for byte.
func wire(m notify.Message) string {
	if m.Text == "" {
		return string(m.Letter)
	}
	return string(m.Letter) + " " + m.Text
}

// A ServerError is the text of an "*ERR" line.
type ServerError struct{ Text string }

func (e *ServerError) Error() string { return fmt.Sprintf("the daemon says %q", notify.LineErr+e.Text) }

// TooSlow reports whether the connection ended because too little was read from it.
func (e *ServerError) TooSlow() bool { return e.Text == notify.TooSlow }

// parseLine reads a line that came after the greeting, without its line feed.
// A line that makes no sense becomes an event of kind Other: an original
// multiplexor lets a worker put line feeds into its status.
func parseLine(line string, extended bool) (Event, error) {
	switch {
	case line == "":
		return Event{Kind: Other}, nil
	case line[0] == '*':
		return parseControl(line)
	case extended && line[0] == '=':
		if e, ok := parseNumbered(line[1:]); ok {
			e.Kind = State
			return e, nil
		}
	case extended:
		if e, ok := parseNumbered(line); ok {
			return e, nil
		}
	default:
		if m, ok := parseMessage(line); ok {
			return Event{Message: m}, nil
		}
	}
	return Event{Kind: Other, Message: notify.Message{Text: line}}, nil
}

func parseControl(line string) (Event, error) {
	if text, ok := strings.CutPrefix(line, notify.LineErr); ok {
		return Event{}, &ServerError{text}
	}
	if text, ok := strings.CutPrefix(line, notify.LineLost); ok {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return Event{Kind: Lost, Lost: n}, nil
		}
	}
	if text, ok := strings.CutPrefix(line, notify.LineLive); ok {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return Event{Kind: Live, Seq: n}, nil
		}
	}
	if text, ok := strings.CutPrefix(line, notify.LineExtended); ok {
		seq, run, _ := strings.Cut(text, " ")
		s, err := strconv.ParseUint(seq, 10, 64)
		r, err2 := strconv.ParseUint(run, 10, 64)
		if err == nil && err2 == nil {
			return Event{Kind: Up, Seq: s, Run: r, Extended: true}, nil
		}
	}
	return Event{Kind: Other, Message: notify.Message{Text: line}}, nil
}

// parseMessage reads "F 3" or "Z".
func parseMessage(s string) (notify.Message, bool) {
	if s == "" || s[0] < 'A' || s[0] > 'Z' || len(s) > 1 && s[1] != ' ' {
		return notify.Message{}, false
	}
	return notify.Message{Letter: s[0], Text: s[min(len(s), 2):]}, true
}

// parseNumbered reads "SEQ TIME MESSAGE".
func parseNumbered(s string) (e Event, ok bool) {
	seq, rest, _ := strings.Cut(s, " ")
	at, text, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return Event{}, false
	}
	if e.Time, ok = parseTime(at); !ok {
		return Event{}, false
	}
	e.Seq = n
	e.Message, ok = parseMessage(text)
	return e, ok
}

// parseTime reads seconds since 1970, a point and six digits.
func parseTime(s string) (time.Time, bool) {
	whole, frac, ok := strings.Cut(s, ".")
	if !ok || len(frac) != 6 || len(whole) > 12 {
		return time.Time{}, false
	}
	sec, err := strconv.ParseUint(whole, 10, 63)
	us, err2 := strconv.ParseUint(frac, 10, 63)
	return time.Unix(int64(sec), int64(us)*1000), err == nil && err2 == nil
}
