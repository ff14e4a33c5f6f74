// Package mxproto is the protocol between a multiplexor and its clients: request
// lines, the answers of workers, and a client.
//
// A request is one line of words, each percent-encoded, one space between them.
// An empty word never goes out, because workers split at runs of white space and
// would take every later word for its neighbour; a placeholder stands in for it.
package mxproto

import (
	"strconv"

	"postern/internal/percent"
)

// Words of the protocol that have a meaning for the multiplexor itself.
const (
	VerbScan    = "scan"
	VerbRelayok = "relayok"
	VerbHelook  = "helook"
	VerbSender  = "senderok"
	VerbRecip   = "recipok"
	VerbFree    = "free"

	// Questions about the state of the pool; their answers are in status.go.
	VerbStatus     = "status"
	VerbWorkers    = "workers"
	VerbWorkerInfo = "workerinfo" // with the number of a slot
	VerbLoad1      = "load1"      // with a number of seconds
	VerbHealth     = "health"
	VerbVersion    = "version"
	VerbReread     = "reread"

	// VerbEmpty asks a multiplexor of ours, over a persistent connection, to remove what is in a directory of its spool
	// that was put aside; the answer is EmptyOK or an error.
	VerbEmpty = "empty"
	EmptyOK   = "ok\n"

	// Hello asks for a persistent connection; HelloOK is the answer of a
	// multiplexor that grants it. See multiplexor-protocol(7).
	Hello   = "hello 2"
	HelloOK = "hello 2 ok\n"

	// What a multiplexor of ours says to a connection that it does not take, whatever
	// the request.
	TooMany    = "error: Too many connections\n"
	NotAllowed = "error: Not allowed\n"
)

const (
	unknown = "UNKNOWN"
	noQueue = "NOQUEUE"
	noMacro = "?"
)

// Relayok asks whether a client may talk to us at all.
type Relayok struct {
	IP     string // the client's address; "" = UNKNOWN
	Name   string // its host name; "" = the address
	Port   int    // its TCP port; 0 = unknown
	MyIP   string // the address it reached; "" = UNKNOWN
	MyPort int    // the port it reached; 0 = unknown
	QID    string // queue id; "" = NOQUEUE
}

// Line returns the request without its LF.
func (r Relayok) Line() string {
	ip := or(r.IP, unknown)
	return percent.Join(VerbRelayok, ip, or(r.Name, ip), port(r.Port), or(r.MyIP, unknown), port(r.MyPort), or(r.QID, noQueue))
}

// Helook asks about the name a client gave in HELO or EHLO. The fields it shares
// with Relayok mean the same.
type Helook struct {
	IP     string
	Name   string
	Helo   string // as typed; "" = UNKNOWN
	Port   int
	MyIP   string
	MyPort int
	QID    string
}

// Line returns the request without its LF.
func (r Helook) Line() string {
	ip := or(r.IP, unknown)
	return percent.Join(VerbHelook, ip, or(r.Name, ip), or(r.Helo, unknown), port(r.Port), or(r.MyIP, unknown), port(r.MyPort), or(r.QID, noQueue))
}

// Senderok asks about the sender of a message.
type Senderok struct {
	Sender string // in angle brackets; "<>" is the null sender, "" = UNKNOWN
	IP     string
	Name   string
	Helo   string
	Dir    string // the message's working directory, an absolute path
	QID    string
	ESMTP  []string // parameters of MAIL as typed, one each; empty ones are left out
}

// Line returns the request without its LF.
func (r Senderok) Line() string {
	ip := or(r.IP, unknown)
	words := []string{VerbSender, or(r.Sender, unknown), ip, or(r.Name, ip), or(r.Helo, unknown), or(r.Dir, unknown), or(r.QID, noQueue)}
	return percent.Join(appendWords(words, r.ESMTP)...)
}

// Recipok asks about one recipient of a message.
type Recipok struct {
	Recipient      string // in angle brackets; "" = UNKNOWN
	Sender         string
	IP             string
	Name           string
	FirstRecipient string // of this message; "" = UNKNOWN
	Helo           string
	Dir            string
	QID            string
	Mailer         string // where the recipient would go; "" = "?"
	Host           string
	Addr           string
	ESMTP          []string // parameters of RCPT
}

// Line returns the request without its LF.
func (r Recipok) Line() string {
	ip := or(r.IP, unknown)
	words := []string{VerbRecip, or(r.Recipient, unknown), or(r.Sender, unknown), ip, or(r.Name, ip), or(r.FirstRecipient, unknown),
		or(r.Helo, unknown), or(r.Dir, unknown), or(r.QID, noQueue), or(r.Mailer, noMacro), or(r.Host, noMacro), or(r.Addr, noMacro)}
	return percent.Join(appendWords(words, r.ESMTP)...)
}

// Scan asks a worker to look at a whole message.
type Scan struct {
	QID string
	Dir string // the working directory, complete up to the F line of COMMANDS
}

// Line returns the request without its LF.
func (r Scan) Line() string { return percent.Join(VerbScan, or(r.QID, noQueue), or(r.Dir, unknown)) }

func or(s, placeholder string) string {
	if s == "" {
		return placeholder
	}
	return s
}

func port(n int) string {
	if n < 0 {
		n = 0
	}
	return strconv.Itoa(n)
}

func appendWords(words, more []string) []string {
	for _, w := range more {
		if w != "" {
			words = append(words, w)
		}
	}
	return words
}
