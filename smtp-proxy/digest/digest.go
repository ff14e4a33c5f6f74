// Package digest sums up a log of smtp-proxy: what came, what was refused and why, what was slow, which next hop failed,
// and who was held back. smtp-proxy(8), LOG DIGEST
//
// Its memory is bounded, whatever strangers have caused: see maxKinds.
package digest

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"time"

	"postern/internal/logging"
)

// Digest is what the lines say that were added.
type Digest struct {
	rows int // most rows of a table, and most messages in a list

	First      time.Time `json:"first,omitzero"` // of the lines that have a time
	Last       time.Time `json:"last,omitzero"`
	Lines      int       `json:"lines"`      // that tell of mail
	Suppressed uint64    `json:"suppressed"` // lines that there are not, because they would have been too many

	Outcomes []*Outcome     `json:"outcomes"` // of messages, in the order in which they came up
	Refusals tally[Refusal] `json:"refusals"`
	Slow     []Message      `json:"slow"`    // that took longest, the longest first
	Servers  []*Server      `json:"servers"` // next hops, in the order in which they came up
	Faults   tally[Fault]   `json:"faults"`
	Clients  tally[Client]  `json:"clients"`
	Held     []Message      `json:"held"` // the last ones
}

// maxNames bounds outcomes, and next hops.
const maxNames = 1000

// New makes one of no lines, with so many rows of a table and messages in a list at most.
func New(rows int) *Digest {
	return &Digest{rows: rows, Outcomes: []*Outcome{}, Slow: []Message{}, Servers: []*Server{}, Held: []Message{}}
}

// Outcome is what became of messages.
type Outcome struct {
	Outcome    string `json:"outcome"`
	Messages   int    `json:"messages"`
	Recipients int    `json:"recipients"`
	Bytes      int64  `json:"bytes"`
}

// Refusal is a reply that is not positive, and who gave it: a gate, or the next hop.
type Refusal struct {
	By    string `json:"by"`
	Reply string `json:"reply"`
}

// Message is one of which a line tells.
type Message struct {
	Time    time.Time `json:"time,omitzero"`
	Seconds float64   `json:"seconds"`
	Outcome string    `json:"outcome"`
	QID     string    `json:"qid"`
	Client  string    `json:"client"`
	From    string    `json:"from"`
	To      string    `json:"to"` // the first recipient
	Server  string    `json:"server,omitempty"`
	Reason  string    `json:"reason,omitempty"` // it is held
	Bytes   int64     `json:"bytes"`
}

// Server is what became of the messages of a next hop.
type Server struct {
	Server   string  `json:"server"`
	Messages int     `json:"messages"`
	Accepted int     `json:"accepted"`
	Deferred int     `json:"deferred"`
	Refused  int     `json:"refused"`
	Seconds  float64 `json:"seconds"` // of all of them
}

// Fault is what went wrong with a next hop. Server is empty if there was no connection: the error names those tried.
type Fault struct {
	Server string `json:"server,omitempty"`
	Act    string `json:"act"`
	Error  string `json:"error"`
}

// Client is a client that was kept out or sent away, and by what.
type Client struct {
	Client string `json:"client"`
	Gate   string `json:"gate"`
}

// Add takes a line into account. Lines of others are passed over.
func (d *Digest) Add(l logging.Line) {
	switch l.Message {
	case "message":
		d.message(l)
	case "refused":
		d.refusal(l)
	case "next hop failed":
		d.Faults.add(Fault{l.Attrs["server"], l.Attrs["act"], ourPort.ReplaceAllString(l.Attrs["error"], "")}, l.Time)
	case "session":
		if gate := l.Attrs["gate"]; gate != "" {
			d.Clients.add(Client{address(l.Attrs["client"]), gate}, l.Time)
		}
	case "turned away":
		d.Clients.add(Client{address(l.Attrs["client"]), l.Attrs["gate"]}, l.Time)
	case "login failed":
		d.Clients.add(Client{address(l.Attrs["client"]), "login failed"}, l.Time)
	case "lines were suppressed":
		n, _ := strconv.ParseUint(l.Attrs["count"], 10, 64)
		d.Suppressed += n
	default:
		return
	}
	d.Lines++
	if !l.Time.IsZero() {
		if d.First.IsZero() || l.Time.Before(d.First) {
			d.First = l.Time
		}
		if l.Time.After(d.Last) {
			d.Last = l.Time
		}
	}
}

// message takes the line about a message into account.
func (d *Digest) message(l logging.Line) {
	m := messageOf(l)
	o := find(&d.Outcomes, func(o *Outcome) bool { return o.Outcome == m.Outcome })
	o.Outcome = m.Outcome
	o.Messages++
	o.Bytes += m.Bytes
	recipients, _ := strconv.Atoi(l.Attrs["recipients"])
	o.Recipients += recipients
	if m.Outcome == "held" {
		d.Held = last(append(d.Held, m), d.rows)
	}
	if reply := l.Attrs["reply"]; reply != "" && reply[0] != '2' {
		d.refusal(l)
	}
	d.server(m)
	at, _ := slices.BinarySearchFunc(d.Slow, m, func(a, b Message) int { return cmp.Compare(b.Seconds, a.Seconds) })
	d.Slow = slices.Insert(d.Slow, at, m)
	d.Slow = d.Slow[:min(len(d.Slow), d.rows)]
}

func messageOf(l logging.Line) Message {
	a := l.Attrs
	size, _ := strconv.ParseInt(a["size"], 10, 64)
	return Message{l.Time, seconds(a["duration"]), a["outcome"], a["qid"], a["client"], a["from"], a["to"], a["server"], a["reason"], size}
}

// server counts a message for its next hop.
func (d *Digest) server(m Message) {
	if m.Server == "" {
		return
	}
	s := find(&d.Servers, func(s *Server) bool { return s.Server == m.Server })
	s.Server = m.Server
	s.Messages++
	s.Seconds += m.Seconds
	switch m.Outcome {
	case "accepted", "held":
		s.Accepted++
	case "deferred":
		s.Deferred++
	case "refused":
		s.Refused++
	}
}

// What differs between replies and errors that say the same.
var (
	ourPort        = regexp.MustCompile(`\S+->`)
	addressInReply = regexp.MustCompile(`<[^<>]*>`)
	idAtEnd        = regexp.MustCompile(` \([^ ()]*\)$`)
)

func (d *Digest) refusal(l logging.Line) {
	by := cmp.Or(l.Attrs["gate"], "next hop")
	reply := addressInReply.ReplaceAllString(idAtEnd.ReplaceAllString(l.Attrs["reply"], ""), "<>")
	d.Refusals.add(Refusal{by, reply}, l.Time)
}

// longest is what is believed of a duration, in seconds; sums of many are still numbers.
const longest = 1e9

// seconds reads a duration, as text or JSON have it; 0 for what is none.
func seconds(text string) float64 {
	s, err := strconv.ParseFloat(text, 64)
	if err != nil {
		d, _ := time.ParseDuration(text)
		s = d.Seconds()
	}
	if !(s >= 0 && s <= longest) { // also what is no number
		return 0
	}
	return s
}

// find returns the element that f looks for. One that is not there is appended, as long as there are not too many, which
// are none of the log of a proxy.
func find[T any](all *[]*T, f func(*T) bool) *T {
	if i := slices.IndexFunc(*all, f); i >= 0 {
		return (*all)[i]
	}
	t := new(T)
	if len(*all) < maxNames {
		*all = append(*all, t)
	}
	return t
}

// last returns the last n elements.
func last[T any](all []T, n int) []T { return all[max(0, len(all)-n):] }
