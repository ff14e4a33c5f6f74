package main

import (
	"errors"
	"strings"
	"time"

	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
)

// transaction is one message from MAIL to the reply to its content.
type transaction struct {
	qid     string
	started time.Time
	from    smtp.Path
	params  []smtp.Param // of MAIL, as typed
	utf8    bool
	eight   bool // BODY=8BITMIME
	notify  bool // a recipient has a NOTIFY that the server must know

	accepted []filter.Recipient
	tried    int    // RCPT commands that were well-formed
	first    string // the first of them, in angle brackets

	filtered *filter.Message // nil: not filtered
	chunks   *chunked        // BDAT has begun

	memory int64 // what it has of the budget

	discard   bool   // the filter wants the message thrown away
	discarded bool   // and it was
	held      string // why the filter has it held; "": it has not

	gate   string // that refused the message
	server string // that answered it
}

// envelope returns the envelope as the client named it, as far as it was taken.
func (tx *transaction) envelope() filter.Envelope {
	return filter.Envelope{From: tx.from, Params: tx.params, Rcpts: tx.accepted}
}

// remove gives up the working directory and what else is held for the message.
func (tx *transaction) remove(srv *server) {
	srv.memory.give(tx.memory)
	tx.memory = 0
	if tx.filtered == nil {
		return
	}
	if err := tx.filtered.Remove(); err != nil {
		srv.log.Error("working directory cannot be removed", "qid", tx.qid, "error", err)
	}
	tx.filtered = nil
}

// newTransaction checks the parameters of MAIL and begins a message; the reply says what is wrong.
func (s *session) newTransaction(from smtp.Path, rest string) (*transaction, *smtp.Reply) {
	params, err := smtp.ParseParams(rest)
	if err != nil {
		return nil, refusalOf(501, "5.5.4", err.Error())
	}
	tx := &transaction{qid: workdir.NewQueueID(), started: time.Now(), from: from, params: params}
	for _, p := range params {
		if r := s.mailParam(tx, p); r != nil {
			return nil, r
		}
	}
	if from.UTF8 && !tx.utf8 {
		return nil, refusalOf(553, "5.6.7", "Address needs SMTPUTF8")
	}
	return tx, nil
}

// mailParam checks one parameter of MAIL: known, offered, well-formed.
func (s *session) mailParam(tx *transaction, p smtp.Param) *smtp.Reply {
	if s.client.esmtp && p.Key == smtp.ParamAuth && p.Value == "<>" {
		return nil // says nothing, and is passed on only with AUTH; clients send it without being offered any
	}
	if !s.client.mayUse(p.Key) {
		return refusalOf(555, "5.5.4", "Parameter not recognized: "+clip(p.Key))
	}
	err := p.CheckMail()
	switch {
	case errors.Is(err, smtp.ErrSizeNumber):
		return refusalOf(552, "5.3.4", "Message is too large")
	case err != nil:
		return refusalOf(501, "5.5.4", "Value of "+p.Key+" is malformed")
	}
	switch p.Key {
	case smtp.ParamSize:
		size, _ := p.Size()
		caps, _ := s.capabilities()
		if limit := s.conf.sizeLimit(caps.Size); limit > 0 && size > limit {
			return refusalOf(552, "5.3.4", "Message is too large")
		}
	case smtp.ParamBody:
		if strings.EqualFold(p.Value, "BINARYMIME") {
			return refusalOf(555, "5.5.4", "BINARYMIME is not offered")
		}
		tx.eight = strings.EqualFold(p.Value, "8BITMIME")
	case smtp.ParamUTF8:
		tx.utf8 = true
	}
	return nil
}

// rcptParams checks the parameters of RCPT.
func (s *session) rcptParams(rest string) ([]smtp.Param, *smtp.Reply) {
	params, err := smtp.ParseParams(rest)
	if err != nil {
		return nil, refusalOf(501, "5.5.4", err.Error())
	}
	for _, p := range params {
		known := p.Key == smtp.ParamNotify || p.Key == smtp.ParamOrigRcpt
		if !known || !s.client.mayUse(p.Key) {
			return nil, refusalOf(555, "5.5.4", "Parameter not recognized: "+clip(p.Key))
		}
		if err := p.CheckRcpt(s.tx != nil && s.tx.utf8); err != nil {
			return nil, refusalOf(501, "5.5.4", "Value of "+p.Key+" is malformed")
		}
	}
	return params, nil
}

func refusalOf(code int, enhanced, text string) *smtp.Reply {
	r := reply(code, enhanced, text)
	return &r
}

// dropTransaction ends a transaction, whose message was answered or given up.
func (s *session) dropTransaction() {
	s.client.forward = nil
	if s.tx == nil {
		return
	}
	s.tx.remove(s.srv)
	s.tx = nil
	s.relay.end()
}
