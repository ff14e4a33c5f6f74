package main

import (
	"context"
	"net"
	"slices"
	"time"

	"postern/internal/listen"
	"postern/internal/sockspec"
	"postern/smtp-proxy/upstream"
)

// lookupTime bounds how long the start waits for the names of servers behind.
const lookupTime = 2 * time.Second

// warnings says what the settings allow that is most likely not meant. listeners are those for mail and others, if they
// are open already.
func (p *program) warnings(ctx context.Context, listeners listen.Set) []string {
	var all []string
	s := &p.settings
	if bool(s.RefuseRelay) && s.local.empty() {
		all = append(all, "refuse-relay is set and local-domains is not: mail to all but postmaster is refused for now; name the domains that are yours")
	}
	if !s.guarded() && reachable(s, listeners) {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		c := upstream.Config{URLs: s.Upstream, ClientIP: upstream.ClientIP(s.UpstreamClientIP)}
		for _, server := range c.Blind(ctx) {
			all = append(all, "OPEN RELAY? To "+server+" every client is this host, for which most servers relay: "+
				"set upstream-client-ip to xclient or proxy2, or refuse-relay to yes with local-domains")
		}
	}
	return append(all, s.TLS.Warnings(mailListeners...)...)
}

// guarded says whether a stranger's mail for strangers is refused here, whatever the server behind does.
func (s *settings) guarded() bool {
	trustsAll := false
	for _, n := range s.relayNets {
		trustsAll = trustsAll || n.Bits() == 0
	}
	return s.ClientipDir != "" || bool(s.RefuseRelay) && !trustsAll
}

// reachable says whether clients of other hosts can come. Sockets that the service manager will pass are not known.
func reachable(s *settings, listeners listen.Set) bool {
	if listeners != nil {
		return slices.ContainsFunc(mailListeners, func(name string) bool {
			return slices.ContainsFunc(listeners[name], func(l net.Listener) bool {
				addr, ok := l.Addr().(*net.TCPAddr)
				return ok && !addr.IP.IsLoopback()
			})
		})
	}
	specs := slices.Concat(s.SMTP, s.Submission, s.SMTPS)
	return len(specs) == 0 || slices.ContainsFunc(specs, func(text string) bool {
		spec, err := sockspec.Parse(text)
		return err == nil && !spec.IsUnix() && !spec.IsLoopback()
	})
}
