package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/held"
	"postern/smtp-proxy/upstream"
)

// releaser sends messages on that were held. It has no client: for the next hop they come from this host.
type releaser struct {
	ups     *upstream.Set
	timeout time.Duration // for the reply to a command
	log     *slog.Logger
}

// send gives a message to the next hop, and returns what that says. The error is that there is nothing to send.
func (r *releaser) send(ctx context.Context, m *held.Message) (smtp.Reply, error) {
	tx, err := heldTransaction(m)
	if err != nil {
		return smtp.Reply{}, err
	}
	next := relay{owner: &releasing{r, ctx, m.ID}, id: "held", timeout: r.timeout, tx: tx}
	env := tx.envelope()
	// What the next hop has against an address is told as it is.
	env.NewFrom = true
	for i := range env.Rcpts {
		env.Rcpts[i].Added = true
	}
	if no := next.openContent(&env); no != nil {
		next.letGo(inOrder)
		return *no, nil
	}
	if _, err := io.CopyBuffer(next.content(), m.Content(), make([]byte, 64<<10)); err != nil {
		return *next.lost("content", err), nil
	}
	reply := next.endContent()
	next.letGo(inOrder)
	return reply, nil
}

// heldTransaction makes the transaction of a message that was held.
func heldTransaction(m *held.Message) (tx *transaction, err error) {
	if m.Err != nil {
		return nil, m.Err
	}
	tx = &transaction{qid: m.ID, started: time.Now(), utf8: m.UTF8, eight: true}
	tx.params = []smtp.Param{{Key: smtp.ParamBody, Text: "BODY=8BITMIME"}}
	path := func(address string) smtp.Path {
		p, rest, e := smtp.ParsePath("<"+address+">", smtp.CheckOff)
		if e == nil && rest != "" {
			e = errors.New("has something behind it")
		}
		if e != nil && err == nil {
			err = fmt.Errorf("address %.100q: %w", address, e)
		}
		tx.utf8 = tx.utf8 || p.UTF8
		return p
	}
	tx.from = path(m.From)
	for _, address := range m.To {
		tx.accepted = append(tx.accepted, filter.Recipient{Path: path(address)})
	}
	if tx.utf8 {
		tx.params = append(tx.params, smtp.Param{Key: smtp.ParamUTF8, Text: smtp.ParamUTF8})
	}
	return tx, err
}

// releasing is the releaser as the owner of the relay of one message.
type releasing struct {
	*releaser
	ctx context.Context
	id  string
}

func (r *releasing) dial() (nextHop, error) {
	up, err := r.ups.Get(r.ctx, upstream.Client{})
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return up, nil
}

func (r *releasing) lost(act string, hop nextHop, err error) smtp.Reply {
	attrs := []any{"act", act, "error", err}
	if hop != nil {
		attrs = append(attrs, "server", hop.Server())
	}
	r.note(slog.LevelWarn, "next hop failed", attrs...)
	return upstream.ReplyFor(err)
}

func (r *releasing) loggedOut()                          {}
func (r *releasing) accept(filter.Recipient) *smtp.Reply { return nil }
func (r *releasing) tell(smtp.Reply, string, bool)       {}
func (r *releasing) note(level slog.Level, what string, attrs ...any) {
	r.log.Log(r.ctx, level, what, append([]any{"held", r.id}, attrs...)...)
}
