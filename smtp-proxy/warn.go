package main

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"postern/internal/listen"
	"postern/internal/mxproto"
	"postern/internal/sockspec"
	"postern/smtp-proxy/upstream"
)

// lookupTime bounds how long the start waits for the names of next hops.
const lookupTime = 2 * time.Second

// warnings says what the settings allow that is most likely not meant. listeners are those for mail and others, if they
// are open already.
func (p *program) warnings(ctx context.Context, listeners listen.Set) []string {
	s := &p.settings
	all := append(s.relayWarnings(ctx, listeners), s.uselessWarnings()...)
	if s.execs() && noNewPrivileges() {
		all = append(all, "exec: set-user-ID and set-group-ID have no effect here (no_new_privs), and a sendmail like that of Postfix needs them: "+
			"see exec in smtp-proxy(8)")
	}
	if listeners == nil { // --check; what serves says so when it needs them
		all = append(append(all, s.silent(ctx)...), s.unkept()...)
		if text := s.Store.Silent(ctx); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// relayWarnings is about mail that is relayed for strangers, or for nobody.
func (s *settings) relayWarnings(ctx context.Context, listeners listen.Set) []string {
	var all []string
	if bool(s.RefuseRelay) && s.local.Empty() {
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

// uselessWarnings is about settings that together keep out those whom they are for.
func (s *settings) uselessWarnings() []string {
	var all []string
	if bool(s.RefuseRelay) && len(s.XForwardFrom) > 0 {
		all = append(all, "refuse-relay holds for clients that servers in xforward-from tell of, too: "+
			"where those servers say who may relay, set refuse-relay to no")
	}
	if len(s.Submission) > 0 && len(s.TLS.Cert) == 0 && bool(s.AuthRequiresTLS) {
		all = append(all, "submission: without tls-cert nobody can log in, since auth-requires-tls is set")
	}
	return all
}

// silentTime is how long a next hop may take to be no reason for a warning.
const silentTime = 5 * time.Second

// silent says which next hops do not answer or do not fit the settings, and whether the filter's workers do not work.
func (s *settings) silent(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, min(silentTime, s.ConnectTimeout))
	defer cancel()
	c, err := s.upstreamConfig()
	if err == nil {
		c.TLSConfig, err = s.UpstreamFiles.Load()
	}
	var all []string
	if err == nil { // else that has been said
		all = c.Silent(ctx)
	}
	return append(all, s.idleFilter(ctx)...)
}

// idleFilter says whether the multiplexor does not answer, and why its workers come to nothing, if they do.
func (s *settings) idleFilter(ctx context.Context) []string {
	spec, err := sockspec.Parse(s.Multiplexor)
	if s.Multiplexor == "" || err != nil {
		return nil
	}
	health, _, err := mxproto.AskHealth(ctx, (&mxproto.Client{Dial: spec.Dial}).Ask)
	switch {
	case err != nil:
		return []string{"the multiplexor does not answer: " + err.Error()}
	case health.Fault != "":
		return []string{"the multiplexor's workers come to nothing: " + health.Fault}
	}
	return nil
}

// noNewPrivileges reports whether programs that we start get no rights by their files.
func noNewPrivileges() bool {
	status, err := os.ReadFile("/proc/thread-self/status")
	return err == nil && strings.Contains(string(status), "\nNoNewPrivs:\t1\n")
}

// guarded says whether a stranger's mail for strangers is refused here, whatever the next hop does.
func (s *settings) guarded() bool {
	trustsAll := false
	for _, n := range s.relayNets {
		trustsAll = trustsAll || n.Bits() == 0
	}
	return s.stamps() || bool(s.RefuseRelay) && !trustsAll
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
