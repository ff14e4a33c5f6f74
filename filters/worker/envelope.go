package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
	"postern/internal/safedir"
	"postern/internal/workdir"
)

// Recipient is a recipient that was accepted.
type Recipient struct {
	Address, Mailer, Host, Addr string   // the last three are "?" if not known
	Args                        []string // ESMTP parameters of RCPT
}

// Envelope is what the front end knows about a message besides its content.
type Envelope struct {
	ID             string // message id
	QueueID        string // "NOQUEUE" if there is none
	Sender         string
	SenderArgs     []string
	Recipients     []Recipient
	Macros         map[string]string // of Sendmail, such as "j" and "auth_authen"
	ClientName     string
	ClientIP       string // of the client, or the one it spoke for, if an outer host told so
	ConnectedIP    string // of the host that connected
	Helo           string
	Subject        string // the first one, undecoded
	Subjects       int    // how many there were
	MessageID      string
	Deadline       time.Time // when the front end gives up waiting for the scan; zero if it did not say
	SuspiciousHead bool      // a bare CR or NUL was in the header
	SuspiciousBody bool      // likewise in the body
}

// maxCommands bounds COMMANDS, in bytes.
const maxCommands = 64 << 20

var errNoF = errors.New("COMMANDS file did not end with F")

// ReadEnvelope reads the envelope of the message in the working directory dir, as far as it is known yet.
func ReadEnvelope(dir string) (*Envelope, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open working directory: %w", err)
	}
	defer root.Close()
	e, err := readEnvelope(root)
	if errors.Is(err, errNoF) {
		err = nil
	}
	return e, err
}

// readEnvelope reads COMMANDS. Without an F line it returns what is there, and errNoF.
func readEnvelope(root *os.Root) (*Envelope, error) {
	f, err := safedir.OpenFile(root, "COMMANDS", os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open COMMANDS: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCommands+1))
	if err != nil {
		return nil, fmt.Errorf("read COMMANDS: %w", err)
	}
	if len(data) > maxCommands {
		return nil, fmt.Errorf("read COMMANDS: more than %d bytes", maxCommands)
	}
	return parseEnvelope(string(data))
}

// parseEnvelope reads the text of a COMMANDS file. As in mimedefang.pl, unknown letters and empty lines are skipped,
// of most letters the last line counts, and what stands behind F is not read.
func parseEnvelope(text string) (*Envelope, error) {
	e := &Envelope{QueueID: "NOQUEUE", Macros: map[string]string{}}
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if line == "" {
			continue
		}
		if line[0] == workdir.CommandEnd {
			return e, nil
		}
		e.line(line[0], line[1:])
	}
	return e, errNoF
}

// line takes one line: its letter and the raw rest.
func (e *Envelope) line(letter byte, raw string) {
	arg := percent.Decode(raw)
	switch letter {
	case workdir.CommandID:
		e.ID = arg
	case workdir.CommandSender:
		e.Sender = arg
	case workdir.CommandSenderArg:
		e.SenderArgs = append(e.SenderArgs, arg)
	case workdir.CommandQueueID:
		if arg != "" {
			e.QueueID = arg
		}
	case workdir.CommandClientName:
		e.ClientName = arg
	case workdir.CommandClientIP:
		e.ClientIP, e.ConnectedIP = arg, arg
	case workdir.CommandRealIP:
		e.ClientIP, e.ClientName = arg, "["+arg+"]"
	case workdir.CommandHelo:
		e.Helo = arg
	case workdir.CommandSubject:
		if e.Subjects == 0 {
			e.Subject = arg
		}
		e.Subjects++
	case workdir.CommandMessageID:
		e.MessageID = arg
	case workdir.CommandSuspiciousHead:
		e.SuspiciousHead = true
	case workdir.CommandSuspiciousBody:
		e.SuspiciousBody = true
	case workdir.CommandMacro:
		if w := decodeWords(raw); len(w) > 0 {
			e.macro(w[0], word(w, 1))
		}
	case workdir.CommandRecipient:
		if w := decodeWords(raw); len(w) > 0 {
			e.Recipients = append(e.Recipients, Recipient{Address: w[0], Mailer: known(w, 1), Host: known(w, 2), Addr: known(w, 3)})
		}
	case workdir.CommandRecipientArg:
		if n := len(e.Recipients); n > 0 {
			e.Recipients[n-1].Args = append(e.Recipients[n-1].Args, arg)
		}
	}
}

func (e *Envelope) macro(name, value string) {
	e.Macros[name] = value
	if name == workdir.MacroDeadline {
		// Without a number there is no deadline.
		if seconds, err := strconv.ParseInt(value, 10, 64); err == nil && seconds > 0 {
			e.Deadline = time.Unix(seconds, 0)
		}
	}
}

func decodeWords(raw string) []string {
	w := strings.Fields(raw)
	for i := range w {
		w[i] = percent.Decode(w[i])
	}
	return w
}

func known(words []string, i int) string {
	if s := word(words, i); s != "" {
		return s
	}
	return "?"
}
