package pool

import (
	"bytes"
	"time"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/internal/percent"
)

// Kind is what the pool knows about a request. Only the first four have a
// load average and bind workers to themselves; all else is kindOther.
type Kind int8

const (
	KindScan     Kind = iota // a whole message
	KindRelayok              // a client
	KindSenderok             // a sender
	KindRecipok              // a recipient
	kindOther
	kindNone // of a worker that never had one of the four
)

// kinds is the number of kinds that have a load average.
const kinds = 4

var kindNames = [kinds]string{mxproto.VerbScan, mxproto.VerbRelayok, mxproto.VerbSender, mxproto.VerbRecip}

func (k Kind) counted() bool { return k < kinds }

// number is the one log lines and load averages know a kind by.
func (k Kind) number() int {
	switch k {
	case kindOther:
		return -1
	case kindNone:
		return -2
	}
	return int(k)
}

// kindOf looks at the verb with the space after it.
func kindOf(line []byte) Kind {
	for k, name := range kindNames {
		if len(line) > len(name) && line[len(name)] == ' ' && string(line[:len(name)]) == name {
			return Kind(k)
		}
	}
	return kindOther
}

// origin says where a request comes from, as far as that changes the rules.
type origin int8

const (
	FromClient origin = iota // the usual one
	FromMap                  // never queued; busy timeouts are not announced
	fromTick                 // the same, and leaves no tag event
	fromPool                 // a readiness probe: not a request at all to the outside
)

// Asker is who waits for the answer of a request. Exactly one of the two is
// called, once, on the loop.
type Asker interface {
	// Answered gets the worker's line with its LF, valid during the call only.
	Answered(line []byte)
	Failed(why Failure)
}

// Request is one line for a worker. It may be used again when its asker was told
// the outcome.
type Request struct {
	line   []byte // with its LF
	Kind   Kind
	origin origin
	asker  Asker

	retried    bool
	domain     string   // of a recipok that counts against its domain
	next, prev *Request // in a queue
	list       *queue   // that it waits in; nil if it waits in none
	pool       *Pool    // that it waits for
	since      time.Duration
	wait       evloop.Timer
}

// Set makes r the request for line, which has no LF.
func (r *Request) Set(line []byte, from origin, a Asker) {
	r.line = append(append(r.line[:0], line...), '\n')
	r.Kind, r.origin, r.asker = kindOther, from, a
	if from == FromClient {
		r.Kind = kindOf(r.line)
	}
	r.retried = false
}

// Trim frees the memory of the line if it is more than most bytes.
func (r *Request) Trim(most int) {
	if cap(r.line) > most {
		r.line = nil
	}
}

// Bare is the line without its LF.
func (r *Request) Bare() []byte { return r.line[:len(r.line)-1] }

// Word returns word n of the line, decoded, or "".
func (r *Request) Word(n int) string {
	rest := r.Bare()
	for ; n > 0; n-- {
		i := bytes.IndexByte(rest, ' ')
		if i < 0 {
			return ""
		}
		rest = rest[i+1:]
	}
	if i := bytes.IndexByte(rest, ' '); i >= 0 {
		rest = rest[:i]
	}
	return percent.Decode(string(rest))
}

// queueID returns the queue id in the line, if its kind has one, for the log.
func (r *Request) queueID() string {
	switch r.Kind {
	case KindScan:
		return logWord(r.Word(1), maxQueueID)
	case KindSenderok:
		return logWord(r.Word(6), maxQueueID)
	case KindRecipok:
		return logWord(r.Word(8), maxQueueID)
	}
	return ""
}

const (
	maxQueueID = 64  // bytes of a queue id in the log
	maxLogPath = 512 // bytes of a path in the log
)

// LogPath makes a path fit for a log line, as logWord does a word.
func LogPath(s string) string { return logWord(s, maxLogPath) }

// logWord makes a word of a client fit for a log line, where it can be mistaken for
// nothing else: it has no space and no control byte, and a bounded length.
func logWord(s string, most int) string { return percent.Encode(s[:min(len(s), most)]) }
