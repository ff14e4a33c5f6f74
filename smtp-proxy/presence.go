package main

import (
	"postern/internal/notify"
	"postern/internal/statfile"
	"postern/smtp-proxy/gate"
)

// presence is what others know of a session while it lasts: listeners to events, the limits of its address, and
// readers of its status file.
type presence struct {
	announced bool           // listeners were told that it began
	uncount   func()         // gives back its place among the sessions of the address; nil: it has none
	stat      *statfile.File // nil: there is none
}

// announce tells listeners that the session has begun.
func (s *session) announce() {
	s.presence.announced = true
	s.srv.publish(notify.LetterConnected, s.id, addressText(s.client.addr.Addr()))
}

// count counts the session with others from its address.
func (s *session) count() (r *gate.Refusal) {
	s.presence.uncount, r = s.srv.gates.Limits.EnterAddress(s.background(), s.client.addr.Addr())
	return r
}

// leaveAddress takes the session off those of its address, if it was counted.
func (p *presence) leaveAddress() {
	if p.uncount != nil {
		p.uncount()
		p.uncount = nil
	}
}

// openStatus makes the status file.
func (s *session) openStatus() {
	if s.srv.stats == nil {
		return
	}
	name := s.client.dnsName()
	if name == "" {
		name = s.client.addr.Addr().String()
	}
	s.presence.stat, _ = s.srv.stats.New(statfile.Fields{
		Type: programName, Start: s.started, Local: s.client.local, Client: s.client.addr.Addr(), ClientName: name, Server: s.srv.upName,
		Status: "CONNECT",
	})
}

// status notes what the session is doing in its status file.
func (s *session) status(text string) {
	if stat := s.presence.stat; stat != nil {
		_ = stat.Update(text) // the directory tells of its own troubles, once per change
	}
}

// end removes the status file, and takes the session off those of its address.
func (p *presence) end() {
	if p.stat != nil {
		p.stat.Remove()
	}
	p.leaveAddress()
}
