package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dmarc"

	"postern/filters/filter-basic/scanner"
	"postern/filters/filter-basic/senderauth"
	"postern/filters/worker"
	"postern/internal/config"
	"postern/internal/netlist"
)

// SenderSettings are those of finding out whom a message is from.
type SenderSettings struct {
	Authenticate    config.Switch `help:"Check SPF, DKIM, ARC and DMARC, and add an Authentication-Results field." default:"no"`
	OnSPFFail       string        `name:"on-spf-fail" help:"What to do with a message from a host that the sender's domain does not allow." enum:"none,mark,reject" default:"none"`
	OnDMARCFail     string        `name:"on-dmarc-fail" help:"What to do with a message that fails DMARC, where the author's domain asks for something." enum:"none,mark,reject" default:"none"`
	TrustedSealers  []string      `help:"Domain of a list or forwarder: what it has sealed by ARC counts against a failure of DMARC. May be given several times." placeholder:"DOMAIN"`
	OnDNSFailure    string        `name:"on-dns-failure" help:"What to do with a message whose sender cannot be checked now." enum:"none,tempfail" default:"none"`
	TrustedNetworks []string      `help:"Clients of these networks, and those who have logged in, are not checked. May be given several times; none checks all. By default this host itself." placeholder:"NETWORK"`
	AuthTimeout     time.Duration `help:"How long that may take for a message." default:"20s" placeholder:"TIME"`
	DNSServer       string        `name:"dns-server" help:"Name server to ask, HOST:PORT; those of the system if it is empty." placeholder:"ADDRESS"`

	trusted  netlist.List
	resolver *senderauth.Resolver
}

// validate checks the settings.
func (s *SenderSettings) validate() error {
	s.trusted = nil
	networks := s.TrustedNetworks
	if len(networks) == 0 {
		networks = []string{"127.0.0.0/8", "::1/128"}
	}
	for _, n := range networks {
		if n == "none" && len(s.TrustedNetworks) == 1 {
			continue
		}
		list, err := netlist.Parse([]string{n})
		if err != nil {
			return &config.Error{Key: "trusted-networks", Value: n, Err: err}
		}
		s.trusted = append(s.trusted, list...)
	}
	if s.AuthTimeout < time.Second {
		return &config.Error{Key: "auth-timeout", Err: errors.New("must be at least 1s")}
	}
	if s.DNSServer != "" {
		if _, _, err := net.SplitHostPort(s.DNSServer); err != nil {
			return &config.Error{Key: "dns-server", Err: fmt.Errorf("%q is not HOST:PORT", s.DNSServer)}
		}
	}
	s.resolver = senderauth.NewResolver(s.DNSServer)
	return nil
}

// isTrusted reports whether a client is not checked.
func (s *SenderSettings) isTrusted(ip string) bool {
	address, err := netip.ParseAddr(ip)
	return err == nil && s.trusted.Has(address.Unmap())
}

// isSealer reports whether what a domain has sealed is believed.
func (s *SenderSettings) isSealer(name string) bool {
	return slices.ContainsFunc(s.TrustedSealers, func(trusted string) bool { return strings.EqualFold(trusted, name) })
}

// checkSender finds out whom a message is from, and replaces the fields that say so in our name.
func (s *Settings) checkSender(m *worker.Message, content []byte, c *changes) ([]*finding, error) {
	if !s.Authenticate {
		return nil, nil
	}
	host := s.serviceID(m)
	fields, err := m.HeaderValues(senderauth.FieldName)
	if err != nil {
		return nil, err
	}
	for i, value := range fields {
		if senderauth.Claims(value, host) {
			c.remove = append(c.remove, scanner.Field{Name: senderauth.FieldName, Index: i + 1})
		}
	}
	if login := m.Macros["auth_authen"]; login != "" || s.isTrusted(m.ClientIP) {
		return nil, nil
	}
	about := &senderauth.Message{ClientIP: m.ClientIP, Helo: m.Helo, Sender: address(m.Sender), Content: content}
	results, findings := s.identify(m.Context(), about)
	s.logf("%s: %s", m.QueueID, results.String())
	c.add = append(c.add, scanner.Field{Name: senderauth.FieldName, Value: results.Field(host, about)})
	return findings, nil
}

// identify finds out whom a message is from, and says what is against that.
func (s *SenderSettings) identify(ctx context.Context, about *senderauth.Message) (senderauth.Results, []*finding) {
	ctx, cancel := context.WithTimeout(ctx, s.AuthTimeout)
	defer cancel()
	results := senderauth.Check(ctx, s.resolver, about)
	return results, s.judgeSender(&results)
}

// judgeSender says what is against the sender.
func (s *SenderSettings) judgeSender(r *senderauth.Results) []*finding {
	var found []*finding
	if r.SPF == authres.ResultFail && r.DMARC != authres.ResultPass {
		found = append(found, &finding{spfFailed, show("host may not send for " + r.SPFDomain)})
	}
	unsure := r.ARC.MayVouch(s.isSealer)
	if r.DMARC == authres.ResultFail && r.Policy != dmarc.PolicyNone && s.OnDMARCFail != "none" && !r.Vouched(s.isSealer) {
		kind := dmarcMarked
		if !unsure && r.Policy == dmarc.PolicyReject && s.OnDMARCFail == "reject" {
			kind = dmarcRefused
		}
		text := "message is not from " + r.From + ", by that domain's policy"
		if r.From == "" {
			text = "message has authors of too many domains"
		}
		found = append(found, &finding{kind, show(text)})
	}
	if r.NoAuthor {
		found = append(found, &finding{noAuthor, "message has no author's address"})
	}
	if unsure && r.DMARC == authres.ResultFail || r.DMARC == authres.ResultTempError || r.SPF == authres.ResultTempError && r.DMARC != authres.ResultPass {
		found = append(found, &finding{uncheckedSender, "sender could not be checked, please try again later"})
	}
	return found
}
