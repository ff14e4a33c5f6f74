// Package senderauth finds out whom a message is from: SPF (RFC 7208), DKIM (RFC 6376), ARC (RFC 8617) and DMARC
// (RFC 7489), with their results as an Authentication-Results field (RFC 8601).
package senderauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/mail"
	"regexp"
	"strings"
	"sync"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Message is what is known of a message.
type Message struct {
	ClientIP string
	Helo     string
	Sender   string   // without angle brackets; "" is the null sender
	From     []string // values of its From fields
	Content  []byte   // lines may end in LF
}

// Results are what was found out.
type Results struct {
	SPF, DMARC authres.ResultValue
	SPFDomain  string
	SPFSender  bool // SPFDomain is the sender's, not that of the greeting
	DKIM       []DKIM
	ARC        ARC
	From       string // the domain of the author
	Policy     dmarc.Policy
}

// Check finds out whom a message is from. All checks go on at the same time: else a sender's own name servers could
// answer so slowly that no time is left to ask what the author's domain wants.
func Check(ctx context.Context, r *Resolver, m *Message) Results {
	var out Results
	var says published
	var checks sync.WaitGroup
	checks.Go(func() { out.spf(ctx, r.client(), m) })
	checks.Go(func() { out.dkim(ctx, r.client(), m.Content) })
	checks.Go(func() { out.arc(ctx, r.client(), m.Content) })
	checks.Go(func() { says = publishedFor(ctx, r.client(), m.From) })
	checks.Wait()
	out.dmarc(&says)
	return out
}

// spf checks the sender's domain, or that of the greeting if there is no sender.
func (out *Results) spf(ctx context.Context, r *client, m *Message) {
	out.SPF = authres.ResultNone
	local, name, is := cutLast(m.Sender, "@")
	if !is {
		local, name = "postmaster", m.Helo
	}
	out.SPFSender, out.SPFDomain = is, domain(name)
	ip := net.ParseIP(strings.TrimPrefix(m.ClientIP, "IPv6:"))
	if ip == nil || out.SPFDomain == "" || strings.HasPrefix(out.SPFDomain, "[") {
		return
	}
	result, _ := spf.CheckHostWithSender(ip, domain(m.Helo), localPart(local)+"@"+out.SPFDomain, spf.WithContext(ctx), spf.WithResolver(r))
	out.SPF = authres.ResultValue(result)
}

// localPart is a local part for SPF's macros, without what quotes it (RFC 5321, 4.1.2) and never empty (RFC 7208, 4.3).
// The library takes what follows the first @ for the domain; no name that is asked for may have one.
func localPart(s string) string {
	if len(s) > 1 && strings.HasPrefix(s, `"`) && strings.HasSuffix(s, `"`) {
		s = quotedPair.ReplaceAllString(s[1:len(s)-1], "$1")
	}
	if s == "" {
		return "postmaster"
	}
	return strings.ReplaceAll(s, "@", "?")
}

var quotedPair = regexp.MustCompile(`\\(.)`)

// published is what the author's domain says about its messages.
type published struct {
	from      string // the domain
	record    *dmarc.Record
	inherited bool                // by the domain from the one above
	without   authres.ResultValue // the result of DMARC, if there is no record
}

// publishedFor asks what the domain says that the message's From fields name.
func publishedFor(ctx context.Context, r *client, from []string) (p published) {
	if p.without = authres.ResultNone; len(from) == 0 {
		return p
	}
	var ok bool
	if p.from, ok = author(from); !ok {
		// RFC 7489, 6.6.1: no domain to be asked, or several. Whoever reads the message sees one of them.
		p.without = authres.ResultPermError
		return p
	}
	record, inherited, err := policy(ctx, r, p.from)
	switch {
	case err == nil:
		p.record, p.inherited = record, inherited
	case errors.Is(err, dmarc.ErrNoPolicy):
	case dmarc.IsTempFail(err) || ctx.Err() != nil || isDNS(err):
		p.without = authres.ResultTempError
	default:
		p.without = authres.ResultPermError
	}
	return p
}

// dmarc sees whether the author's domain is the one that SPF or DKIM has found.
func (out *Results) dmarc(says *published) {
	out.From, out.DMARC = says.from, says.without
	record := says.record
	if record == nil {
		return
	}
	out.DMARC = authres.ResultFail
	if out.SPF == authres.ResultPass && aligned(out.From, out.SPFDomain, record.SPFAlignment) {
		out.DMARC = authres.ResultPass
	}
	// What could not be checked counts if it might have helped; else a name server of the sender's own would do that fails.
	temporary := out.SPF == authres.ResultTempError && aligned(out.From, out.SPFDomain, record.SPFAlignment)
	for _, d := range out.DKIM {
		if !aligned(out.From, d.Domain, record.DKIMAlignment) {
			continue
		}
		if d.Value == authres.ResultPass {
			out.DMARC = authres.ResultPass
		}
		temporary = temporary || d.Value == authres.ResultTempError
	}
	if out.DMARC == authres.ResultFail && temporary {
		out.DMARC = authres.ResultTempError
	}
	out.Policy = asked(record, says.inherited)
}

// asked is what the domain asks to be done with messages that fail.
func asked(record *dmarc.Record, inherited bool) dmarc.Policy {
	p := record.Policy
	if inherited && record.SubdomainPolicy != "" {
		p = record.SubdomainPolicy
	}
	if record.Percent != nil && rand.IntN(100) >= *record.Percent { // RFC 7489, 6.6.4
		if p == dmarc.PolicyReject {
			return dmarc.PolicyQuarantine
		}
		return dmarc.PolicyNone
	}
	return p
}

// policy returns the record of a domain, or the one that it inherits.
func policy(ctx context.Context, r *client, name string) (record *dmarc.Record, inherited bool, err error) {
	options := &dmarc.LookupOptions{LookupTXT: func(name string) ([]string, error) {
		txt, err := r.LookupTXT(ctx, name)
		return onlyRecord(txt), err
	}}
	record, err = dmarc.LookupWithOptions(name, options)
	if organization := organizational(name); errors.Is(err, dmarc.ErrNoPolicy) && organization != name {
		record, err = dmarc.LookupWithOptions(organization, options)
		return record, true, err
	}
	return record, false, err
}

// onlyRecord returns the DMARC record among texts; none if there are several (RFC 7489, 6.6.3).
func onlyRecord(texts []string) []string {
	var records []string
	for _, t := range texts {
		if strings.HasPrefix(t, "v=DMARC1") {
			records = append(records, t)
		}
	}
	if len(records) != 1 {
		return nil
	}
	return records
}

func isDNS(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) || strings.Contains(err.Error(), "failed to lookup")
}

// aligned reports whether two domains are those of one organization, or in strict mode the same.
func aligned(from, other string, mode dmarc.AlignmentMode) bool {
	if other == "" || from == other {
		return other != ""
	}
	return mode != dmarc.AlignmentStrict && organizational(from) == organizational(other)
}

// organizational returns the part of a domain that was registered (RFC 7489, 3.2).
func organizational(name string) string {
	if organization, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return organization
	}
	return name
}

// author returns the domain of the author; ok is false unless there is exactly one field with addresses of one domain.
func author(from []string) (name string, ok bool) {
	if len(from) != 1 {
		return "", false
	}
	list, err := mail.ParseAddressList(from[0])
	if err != nil {
		return "", false
	}
	for _, a := range list {
		_, d, found := cutLast(a.Address, "@")
		if d = domain(d); !found || d == "" || name != "" && d != name {
			return "", false
		}
		name = d
	}
	return name, name != ""
}

// domain returns a domain in the form in which they are compared and asked for.
func domain(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		return ascii
	}
	return name
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
