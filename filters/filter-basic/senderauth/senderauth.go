// Package senderauth finds out whom a message is from: SPF (RFC 7208), DKIM (RFC 6376), ARC (RFC 8617) and DMARC
// (RFC 7489), with their results as an Authentication-Results field (RFC 8601).
package senderauth

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
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
	Sender   string // without angle brackets; "" is the null sender
	Content  []byte // lines may end in LF
}

// Results are what was found out.
type Results struct {
	SPF, DMARC authres.ResultValue
	SPFDomain  string
	SPFSender  bool // SPFDomain is the sender's, not that of the greeting
	DKIM       []DKIM
	ARC        ARC
	From       string // the author's domain that DMARC is about: of several the one with the worst result
	Policy     dmarc.Policy
	NoAuthor   bool // no From field has an address

	authors authors
}

// Vouched reports whether trusted sealers have found that the message was from each domain that may be the author's. Of
// several From fields they, too, have signed one.
func (r *Results) Vouched(trusts func(sealer string) bool) bool {
	unknown := func(from string) bool { return !r.ARC.Vouched(from, trusts) }
	return r.authors.fields == 1 && len(r.authors.domains) > 0 && !r.authors.tooMany && !slices.ContainsFunc(r.authors.domains, unknown)
}

// Check finds out whom a message is from. All checks go on at the same time: else a sender's own name servers could
// answer so slowly that no time is left to ask what the author's domain wants.
func Check(ctx context.Context, r *Resolver, m *Message) Results {
	var out Results
	out.authors = authorsOf(Values(bytes.TrimLeft(m.Content, "\r\n"), "From")) // empty lines on top are skipped by some readers
	says := make([]published, len(out.authors.domains))
	var checks sync.WaitGroup
	checks.Go(func() { out.spf(ctx, r.client(), m) })
	checks.Go(func() { out.dkim(ctx, r.client(), m.Content) })
	checks.Go(func() { out.arc(ctx, r.client(), m.Content) })
	for i, name := range out.authors.domains {
		checks.Go(func() { says[i] = publishedFor(ctx, r.client(), name) })
	}
	checks.Wait()
	out.dmarc(says)
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

// published is what a domain says about its messages.
type published struct {
	from      string // the domain
	record    *dmarc.Record
	inherited bool                // by the domain from the one above
	without   authres.ResultValue // the result of DMARC, if there is no record
}

// publishedFor asks what a domain says.
func publishedFor(ctx context.Context, r *client, name string) published {
	p := published{from: name, without: authres.ResultNone}
	record, inherited, err := policy(ctx, r, name)
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

// dmarc sees whether the domains that may be the author's are what SPF or DKIM has found. Of several, the one counts that
// asks for the most of those that fail (RFC 7489, 6.6.1): whoever reads the message sees one of them.
func (out *Results) dmarc(says []published) {
	switch {
	case out.authors.tooMany:
		out.DMARC, out.Policy = authres.ResultFail, dmarc.PolicyReject
		return
	case len(says) == 0:
		out.NoAuthor = true
		if out.DMARC = authres.ResultPermError; out.authors.fields == 0 {
			out.DMARC = authres.ResultNone
		}
		return
	}
	for i := range says {
		value, policy := out.judge(&says[i])
		if i == 0 || weight(value, policy) > weight(out.DMARC, out.Policy) {
			out.DMARC, out.Policy, out.From = value, policy, says[i].from
		}
	}
}

// weight orders results.
func weight(value authres.ResultValue, policy dmarc.Policy) int {
	if value == authres.ResultFail {
		return max(3, map[dmarc.Policy]int{dmarc.PolicyQuarantine: 5, dmarc.PolicyReject: 6}[policy])
	}
	return map[authres.ResultValue]int{authres.ResultNone: 1, authres.ResultPermError: 2, authres.ResultTempError: 4}[value]
}

// judge sees whether a domain is the one that SPF or DKIM has found.
func (out *Results) judge(says *published) (result authres.ResultValue, policy dmarc.Policy) {
	record := says.record
	if record == nil {
		return says.without, ""
	}
	result = authres.ResultFail
	if out.SPF == authres.ResultPass && aligned(says.from, out.SPFDomain, record.SPFAlignment) {
		result = authres.ResultPass
	}
	// What could not be checked counts if it might have helped; else a name server of the sender's own would do that fails.
	temporary := out.SPF == authres.ResultTempError && aligned(says.from, out.SPFDomain, record.SPFAlignment)
	for _, d := range out.DKIM {
		// Of several From fields a signature is about one, which may be another than a reader shows.
		if out.authors.fields > 1 || !aligned(says.from, d.Domain, record.DKIMAlignment) {
			continue
		}
		if d.Value == authres.ResultPass {
			result = authres.ResultPass
		}
		temporary = temporary || d.Value == authres.ResultTempError
	}
	if result == authres.ResultFail && temporary {
		result = authres.ResultTempError
	}
	return result, asked(record, says.inherited)
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
