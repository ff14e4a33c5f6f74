package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/upstream"
)

// extensions are those that EHLO offered to a client, of those that a next hop must have: what it can do, or
// was able to do when somebody saw it last. The server that gets the message in the end may be another one.
// What it lacks is left out only if that changes nothing for the message: else the client is told to come
// again, and the next EHLO tells it what it can have.
type extensions struct {
	eight, utf8, dsn, auth bool
}

// have reports whether the extension was offered that a parameter belongs to.
func (e extensions) have(key string) bool {
	switch key {
	case smtp.ParamSize:
		return true
	case smtp.ParamBody:
		return e.eight
	case smtp.ParamUTF8:
		return e.utf8
	case smtp.ParamRet, smtp.ParamEnvID, smtp.ParamNotify, smtp.ParamOrigRcpt:
		return e.dsn
	case smtp.ParamAuth:
		return e.auth
	}
	return false
}

// lacking returns an error that says what a server lacks for a message.
func (tx *transaction) lacking(caps upstream.Capabilities) error {
	switch {
	case tx.utf8 && !caps.SMTPUTF8:
		// RFC 6531, 3.2: such mail must not go there.
		return incapable("4.6.7", "SMTPUTF8")
	case tx.notify && !caps.DSN:
		return incapable("4.3.3", "DSN")
	}
	return nil
}

// incapable is the error of a server that stands in for one that can do more.
func incapable(enhanced, keyword string) error {
	return &upstream.Error{
		Reply: reply(451, enhanced, "Server cannot take this mail now, try again later"), Err: errors.New("server knows no " + keyword),
	}
}

// wantsNotice reports whether the recipient has a NOTIFY that cannot be left out. RFC 3461, 5.2.2: the proxy,
// having no queue, can neither report that a message went on to a server that reports no success, nor keep
// one from reporting a failure. Without FAILURE and DELAY servers do the same; RET, ENVID and ORCPT only add
// to a report.
func wantsNotice(r filter.Recipient) bool {
	for _, p := range r.Params {
		if value := strings.ToUpper(p.Value); p.Key == smtp.ParamNotify && (strings.Contains(value, "SUCCESS") || value == "NEVER") {
			return true
		}
	}
	return false
}

// content takes the content of a message for the next hop. What was announced as 8BITMIME goes to a server
// without it only as far as it needs none: RFC 6152, 3.
func (r *relay) content() io.Writer {
	w := upstreamWriter{r.hop.Content()}
	if r.tx.eight && !r.hop.Capabilities().EightBitMIME {
		return sevenBit{w}
	}
	return w
}

// sevenBit passes on content of seven bits.
type sevenBit struct{ w io.Writer }

func (v sevenBit) Write(p []byte) (int, error) {
	for _, b := range p {
		if b >= 0x80 {
			return 0, fmt.Errorf("%w: %w", errUpstream, incapable("4.6.3", "8BITMIME"))
		}
	}
	return v.w.Write(p)
}
