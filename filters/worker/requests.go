package worker

import "strconv"

// RelayRequest asks whether a client may connect. What is not known is "UNKNOWN", or 0 for ports.
type RelayRequest struct {
	IP, Name string
	Port     int
	MyIP     string
	MyPort   int
	QueueID  string // "NOQUEUE" if there is none yet
}

// HeloRequest asks whether a client may call itself Helo.
type HeloRequest struct {
	RelayRequest
	Helo string
}

// SenderRequest asks whether somebody may send. Addresses are as the client gave them, normally in angle brackets;
// the null sender is "<>". Changes asked for here are made when the message is accepted.
type SenderRequest struct {
	Sender, IP, Name, Helo string
	Dir                    string // working directory of the message
	QueueID                string
	Args                   []string // ESMTP parameters of MAIL
	Changes
}

// RecipientRequest asks whether mail may be sent to somebody. Changes stay when the recipient is refused.
type RecipientRequest struct {
	Recipient, Sender, IP, Name string
	FirstRecipient              string // of the message; may have been refused
	Helo, Dir, QueueID          string
	Mailer, Host, Addr          string   // how the server would deliver; "?" if not known
	Args                        []string // ESMTP parameters of RCPT
	Changes
}

// Envelope reads what the front end has written down about the message so far.
func (r *SenderRequest) Envelope() (*Envelope, error) { return ReadEnvelope(r.Dir) }

// Envelope reads what the front end has written down about the message so far; the recipient of the request is not
// among the recipients yet.
func (r *RecipientRequest) Envelope() (*Envelope, error) { return ReadEnvelope(r.Dir) }

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// rest returns the words from number i on.
func rest(words []string, i int) []string {
	if i >= len(words) {
		return nil
	}
	return words[i:]
}

func (s *server) relayok(w []string) string {
	if s.Relay == nil {
		return undefined.String()
	}
	r := RelayRequest{IP: word(w, 0), Name: word(w, 1), Port: number(word(w, 2)), MyIP: word(w, 3), MyPort: number(word(w, 4)), QueueID: word(w, 5)}
	return s.Relay(&r).String()
}

func (s *server) helook(w []string) string {
	if s.Helo == nil {
		return undefined.String()
	}
	r := HeloRequest{Helo: word(w, 2)}
	r.RelayRequest = RelayRequest{IP: word(w, 0), Name: word(w, 1), Port: number(word(w, 3)), MyIP: word(w, 4), MyPort: number(word(w, 5)), QueueID: word(w, 6)}
	return s.Helo(&r).String()
}

func (s *server) senderok(w []string) string {
	if s.Sender == nil {
		return undefined.String()
	}
	r := SenderRequest{Sender: word(w, 0), IP: word(w, 1), Name: word(w, 2), Helo: word(w, 3), Dir: word(w, 4), QueueID: word(w, 5), Args: rest(w, 6)}
	return s.judged(s.Sender(&r), r.Dir, &r.Changes)
}

func (s *server) recipok(w []string) string {
	if s.Recipient == nil {
		return undefined.String()
	}
	r := RecipientRequest{Recipient: word(w, 0), Sender: word(w, 1), IP: word(w, 2), Name: word(w, 3), FirstRecipient: word(w, 4),
		Helo: word(w, 5), Dir: word(w, 6), QueueID: word(w, 7), Mailer: word(w, 8), Host: word(w, 9), Addr: word(w, 10), Args: rest(w, 11)}
	return s.judged(s.Recipient(&r), r.Dir, &r.Changes)
}

// judged writes the changes that a callback asked for besides its verdict. If that fails, neither counts.
func (s *server) judged(v Verdict, dir string, c *Changes) string {
	if err := c.appendTo(dir); err != nil {
		s.log("write changes: %v", err)
		v = internalError
	}
	return v.String()
}
