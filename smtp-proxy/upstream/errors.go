package upstream

import (
	"errors"

	"postern/internal/smtp"
)

// Error is why there is no connection, or why one is of no more use, with the reply that a client may
// be given for it: always a temporary one, unless it is the server's own.
type Error struct {
	Server string // its URL, or empty
	Reply  smtp.Reply
	Err    error
}

// Error names the server and the cause. It is for the log, not for clients.
func (e *Error) Error() string {
	if e.Server == "" {
		return e.Err.Error()
	}
	return "server " + e.Server + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReplyFor gives the reply that a client may be given for an error of this package. It tells nothing of
// what is behind the proxy.
func ReplyFor(err error) smtp.Reply {
	var e *Error
	if errors.As(err, &e) {
		return e.Reply
	}
	return replyDown
}

// Replies to clients when we cannot go on. RFC 3463 gives the codes; 4.7.4 and 4.7.5 are from its 3.8.
var (
	replyDown      = smtp.NewReply(451, "4.4.1", "Server is not available, try again later")
	replyLost      = smtp.NewReply(451, "4.4.2", "Connection to the server was lost, try again later")
	replyProtocol  = smtp.NewReply(451, "4.3.0", "Server cannot be understood, try again later")
	replyBusy      = smtp.NewReply(451, "4.3.2", "Server is busy, try again later")
	replyNoTLS     = smtp.NewReply(451, "4.7.4", "Server offers no secure connection, try again later")
	replyBadCert   = smtp.NewReply(451, "4.7.5", "Server cannot be trusted, try again later")
	replyNoXClient = smtp.NewReply(421, "4.3.2", "Server takes no mail from here, try again later")
)

// Causes that have a name.
var (
	// ErrProtocol is wrapped by errors for what a server must not do: the connection is out of step.
	ErrProtocol = errors.New("protocol error")
	// ErrClosed says that the Set or the Conn is closed.
	ErrClosed = errors.New("closed")
	// ErrMisuse says that the caller went against the order of things; it is a bug of ours.
	ErrMisuse = errors.New("misuse of a connection")

	errTalks      = errors.New("it said something that nobody had asked for")
	errHungUp     = errors.New("it closed the connection")
	errInClear    = errors.New("a password must not go there in clear")
	errNoTLS      = errors.New("it offers no TLS")
	errThisClient = errors.New("it does not take this client")
	errNoXClient  = errors.New("it offers no XCLIENT")
	errBusy       = errors.New("all connections are in use")
	errShut       = errors.New("it failed before and is left alone for a while")
)
