package main

import (
	"bytes"
	"time"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/internal/percent"
)

// kind is what the pool knows about a request. Only the first four have a
// history and bind workers to themselves; all else is kindOther.
type kind int8

const (
	kindScan kind = iota
	kindRelayok
	kindSenderok
	kindRecipok
	kindOther
	kindNone // of a worker that never had one of the four
)

// kinds is the number of kinds that have a history.
const kinds = 4

var kindNames = [kinds]string{mxproto.VerbScan, mxproto.VerbRelayok, mxproto.VerbSender, mxproto.VerbRecip}

func (k kind) counted() bool { return k < kinds }

// number is the one log lines and load figures know a kind by.
func (k kind) number() int {
	switch k {
	case kindOther:
		return -1
	case kindNone:
		return -2
	}
	return int(k)
}

// kindOf looks at the verb with the space after it.
func kindOf(line []byte) kind {
	for k, name := range kindNames {
		if len(line) > len(name) && line[len(name)] == ' ' && string(line[:len(name)]) == name {
			return kind(k)
		}
	}
	return kindOther
}

// origin says where a request comes from, as far as that changes the rules.
type origin int8

const (
	fromClient origin = iota
	fromMap           // never queued; busy timeouts are not announced
	fromTick          // the same, and leaves no tag event
	fromPool          // a readiness probe: not a request at all to the outside
)

// failure is why a request got no answer of a worker.
type failure int8

const (
	failNoFree     failure = iota // every worker is busy
	failStart                     // a process could not be started
	failQueue                     // waited too long
	failTalk                      // the line could not be given to the worker
	failDied                      // the worker went away
	failTimeout                   // busy timeout
	failOverloaded                // busy timeout while many workers were busy
	failDomain                    // too many recipients of one domain
	failAnswer                    // an answer without end, or bytes after it
	failPoison                    // killed too many workers
	failShutdown
	failures // how many there are
)

// asker is who waits for the answer of a request. Exactly one of the two is
// called, once, on the loop.
type asker interface {
	// answered gets the worker's line with its LF, valid during the call only.
	answered(line []byte)
	failed(why failure)
}

// request is one line for a worker. It may be used again when its asker was told
// the outcome.
type request struct {
	line   []byte // with its LF
	kind   kind
	origin origin
	asker  asker

	retried    bool
	domain     string   // of a recipok that counts against its domain
	next, prev *request // in a queue
	list       *queue
	queued     bool
	pool       *pool // that it waits for
	since      time.Duration
	wait       evloop.Timer
}

// set makes r the request for line, which has no LF.
func (r *request) set(line []byte, from origin, a asker) {
	r.line = append(append(r.line[:0], line...), '\n')
	r.kind, r.origin, r.asker = kindOther, from, a
	if from == fromClient {
		r.kind = kindOf(r.line)
	}
	r.retried = false
}

// bare is the line without its LF.
func (r *request) bare() []byte { return r.line[:len(r.line)-1] }

// word gives word n of the line, decoded, or "".
func (r *request) word(n int) string {
	rest := r.bare()
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

// queueID gives the queue id in the line, if its kind has one, for the log.
func (r *request) queueID() string {
	switch r.kind {
	case kindScan:
		return logWord(r.word(1), maxQueueID)
	case kindSenderok:
		return logWord(r.word(6), maxQueueID)
	case kindRecipok:
		return logWord(r.word(8), maxQueueID)
	}
	return ""
}

const (
	maxQueueID = 64  // bytes of a queue id in the log
	maxLogPath = 512 // bytes of a path in the log
)

// logWord makes a word of a client fit for a log line, where it can be mistaken for
// nothing else: it has no space and no control byte, and a bounded length.
func logWord(s string, most int) string { return percent.Encode(s[:min(len(s), most)]) }

// queue holds the requests that wait, oldest first.
type queue struct {
	head, tail *request
	len        int
}

func (q *queue) push(r *request) {
	r.queued, r.list, r.prev, r.next = true, q, q.tail, nil
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
	q.len++
}

func (q *queue) remove(r *request) {
	if !r.queued {
		return
	}
	if r.prev == nil {
		q.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		q.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.queued, r.list, r.prev, r.next = false, nil, nil, nil
	q.len--
}
