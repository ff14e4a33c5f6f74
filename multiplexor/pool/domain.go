package pool

import (
	"bytes"
	"log/slog"
	"strings"
)

// The limit of concurrent recipok requests for one domain (--max-recipok-per-domain):
// a slow server of one domain should not hold all workers.

const maxDomain = 127

// recipientDomain returns the domain in the second word of a recipok line, in lower
// case, or "". Only the recipient counts: the original took the first @ in the
// line, which can be the sender's.
func recipientDomain(line []byte) string {
	words := bytes.SplitN(line, []byte(" "), 3)
	if len(words) < 2 {
		return ""
	}
	_, domain, found := bytes.Cut(words[1], []byte("@"))
	if !found {
		return ""
	}
	if i := bytes.IndexAny(domain, "> \n"); i >= 0 {
		domain = domain[:i]
	}
	return strings.ToLower(string(domain[:min(len(domain), maxDomain)]))
}

// domainFull reports whether r would exceed the limit.
func (p *Pool) domainFull(r *Request) bool {
	if p.limits.PerDomain <= 0 {
		return false
	}
	domain := recipientDomain(r.line)
	if domain == "" || p.domains[domain] < p.limits.PerDomain {
		return false
	}
	p.event(slog.LevelWarn, "Hit per-domain recipok limit (%d) for domain %s", p.limits.PerDomain, domain)
	return true
}

func (p *Pool) enterDomain(r *Request) {
	if p.limits.PerDomain <= 0 || r.Kind != KindRecipok {
		return
	}
	if r.domain = recipientDomain(r.line); r.domain != "" {
		p.domains[r.domain]++
	}
}

func (p *Pool) leaveDomain(r *Request) {
	if r.domain == "" {
		return
	}
	if p.domains[r.domain]--; p.domains[r.domain] <= 0 {
		delete(p.domains, r.domain)
	}
	r.domain = ""
}
