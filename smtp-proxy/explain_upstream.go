package main

import (
	"crypto/tls"
	"fmt"

	"postern/internal/smtp"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/upstream"
)

// askUpstream asks every next hop what it makes of sender and recipients when they come from the client. It
// names them, takes that back by RSET, and leaves: no message is sent.
func (e *explanation) askUpstream(behind *tls.Config, from string, to []string) {
	for _, url := range e.s.conf.Upstream {
		if err := e.askServer(url, behind, from, to); err != nil {
			r := upstream.ReplyFor(err)
			e.say(gateUpstream, &r)
			e.note("", err.Error())
		}
	}
}

// gateUpstream is what explain calls the next hop.
const gateUpstream = "upstream"

func (e *explanation) askServer(url string, behind *tls.Config, from string, to []string) error {
	alone := *e.s.conf.settings
	alone.Upstream = []string{url}
	set, err := newUpstreams(&alone, behind, e.s.srv.log)
	if err != nil {
		return err
	}
	defer set.Close()
	up, err := set.Get(e.s.background(), e.s.client.upstream(e.s.conf.limitExemptNets))
	if err != nil {
		return err
	}
	e.note(gateUpstream, url)
	defer up.Release()
	next := relay{hop: up, timeout: e.s.conf.UpstreamTimeout}
	sender, err := explainAddress(from, e.s.conf.check())
	if err != nil {
		return nil // the gates have said so
	}
	var params []smtp.Param
	if up.Capabilities().SMTPUTF8 {
		params = append(params, smtp.Param{Key: smtp.ParamUTF8, Text: smtp.ParamUTF8})
	}
	if r, err := next.exchange(next.mailLine(sender, params)); err != nil || !r.Positive() {
		e.answered(sender, r)
		return err
	}
	for _, address := range to {
		path, err := explainAddress(address, e.s.conf.check())
		if err != nil || path.Null() {
			continue
		}
		r, err := next.exchange(next.rcptLine(filter.Recipient{Path: path}))
		if err != nil {
			return err
		}
		e.answered(path, r)
		if r.Positive() && !e.s.conf.local.Has(path) {
			text := fmt.Sprintf("it relays to %s for %s", path, e.s.client.addr.Addr())
			if e.s.conf.local.Empty() {
				text += ", unless that is a recipient of ours: local-domains is not set"
			}
			e.note("", text)
		}
	}
	return nil
}

// answered prints the server's answer about an address.
func (e *explanation) answered(path smtp.Path, r smtp.Reply) {
	if r.Positive() {
		e.note(gateUpstream, "open   "+path.String()+" "+r.String())
		return
	}
	e.say(gateUpstream, &r)
}
