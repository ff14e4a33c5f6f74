package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/netlist"
	"postern/internal/notify/hub"
	"postern/internal/safedir"
	"postern/internal/sockspec"
	"postern/internal/store"
	"postern/internal/tlsconf"
)

// settings are all settings of pop3-stamp: command line, environment and file.
type settings struct {
	daemon.Common `embed:""`
	hub.Access
	listen.Rights

	POP3       []string `name:"pop3" placeholder:"SPEC" help:"Listen here for POP3 clients. May be given several times."`
	POP3S      []string `name:"pop3s" placeholder:"SPEC" help:"Listen here for POP3 clients over TLS from the first byte."`
	Notify     []string `name:"notify" placeholder:"SPEC" help:"Listen here for programs that want to know what happens."`
	Stamps     []string `name:"stamps" placeholder:"SPEC" help:"Listen here, on UNIX sockets, for programs that have seen a login and ask for a stamp."`
	StampUsers []string `name:"stamp-users" sep:"none" placeholder:"NAME" help:"User who may ask for stamps there, beside root and our own; may be given several times."`
	Metrics    []string `name:"metrics" placeholder:"SPEC" help:"Serve Prometheus metrics here."`
	Hostname   string   `name:"hostname" placeholder:"NAME" help:"Our name in the greeting. Default: the name of the host."`

	Upstream              []string       `name:"upstream" placeholder:"URL" default:"pop3://localhost:10110" help:"The upstream server: pop3://HOST:PORT or pop3s://HOST:PORT. Several: the next one when one is down."`
	UpstreamTLS           string         `name:"upstream-tls" enum:"none,may,require,verify" default:"none" help:"TLS towards the upstream server, with STLS: none, may, require or verify."`
	UpstreamFiles         tlsconf.Client `embed:""` // for TLS with it
	UpstreamTO            time.Duration  `name:"upstream-timeout" default:"2m" help:"How long the upstream server may take for a reply, or be silent within one."`
	UpstreamClient        string         `name:"upstream-client-ip" enum:"none,xclient,proxy1,proxy2" default:"none" help:"How to tell the upstream server who the client is: none, xclient, proxy1 or proxy2."`
	UserUpstream          []string       `name:"user-upstream" placeholder:"URL" help:"Server that a user may choose by logging in as NAME@HOST or NAME@HOST:PORT, given as upstream is. Several may be given."`
	UserUpstreamDelimiter string         `name:"user-upstream-delimiter" placeholder:"CHAR" default:"@" help:"What stands between the name of a user and that of a server."`
	UnknownCommands       string         `name:"unknown-commands" enum:"strict,pass" default:"strict" help:"Commands of clients that have logged in that the proxy does not know: strict refuses them, pass hands them to the upstream server."`
	ConnectTimeout        time.Duration  `name:"connect-timeout" default:"30s" help:"How long connecting to the upstream server may take."`
	SASL                  []string       `name:"sasl" placeholder:"MECHANISM" help:"SASL mechanism that the upstream server knows, to be passed through, such as PLAIN or SCRAM-SHA-256; any: all that it offers. Several may be given."`
	APOP                  config.Switch  `name:"apop" default:"no" help:"Pass APOP through. The upstream server is then connected to for each client at once, for its timestamp."`

	ClientipDir        string         `name:"clientip-dir" placeholder:"DIR" help:"Write stamps here. smtp-proxy has a setting of the same name."`
	Store              store.Settings `embed:""`
	ClientipIPv6Prefix int            `name:"clientip-ipv6-prefix" default:"128" placeholder:"BITS" help:"How many bits of an IPv6 address a stamp is for: 64 for a whole network."`
	ClientipMaxage     time.Duration  `name:"clientip-maxage" default:"10m" help:"How long a stamp is fresh."`
	StampOnConnect     string         `name:"stamp-on-connect" enum:"keep,remove" default:"keep" help:"What happens to the stamp of an address when somebody connects from there: keep, or remove as pop3.proxy did."`
	ExpireInterval     time.Duration  `name:"expire-interval" default:"1m" help:"How often old stamps are removed; 0 leaves it to pop3-stamp expire."`
	Statdir            string         `name:"statdir" placeholder:"DIR" help:"Write a status file per session here."`

	MaxSessions           int           `name:"max-sessions" default:"5000" placeholder:"N" help:"Most sessions at a time; 0 for no limit."`
	MaxSessionsPerAddress int           `name:"max-sessions-per-address" default:"20" placeholder:"N" help:"Most sessions at a time from one address (IPv6: from one /64); 0 for no limit."`
	MaxLoginTries         int           `name:"max-login-tries" default:"3" placeholder:"N" help:"Session ends after so many failed logins."`
	MaxLoginFailures      int           `name:"max-login-failures" default:"20" placeholder:"N" help:"Failed logins from one address within ten minutes after which it may not connect; 0 for no limit."`
	ClusterLimits         config.Switch `name:"cluster-limits" default:"no" help:"Count sessions and failed logins over all gateways, in clientip-store."`
	LoginDelay            time.Duration `name:"login-delay" default:"1s" help:"How long the answer to the first failed login from an address waits; twice as long for each further one, up to 30s."`
	MaxErrors             int           `name:"max-errors" default:"5" placeholder:"N" help:"Session ends after so many commands in error."`
	LoginTimeout          time.Duration `name:"login-timeout" default:"1m" help:"How long a client may take to log in."`
	IdleTimeout           time.Duration `name:"idle-timeout" default:"10m" help:"How long a client that is logged in may say nothing, RFC 1939 3."`
	WriteTimeout          time.Duration `name:"write-timeout" default:"2m" help:"How long a client may read nothing of what it asked for."`

	ProxyFrom    []string      `name:"proxy-from" placeholder:"NETWORK" help:"Load balancers: connections from here begin with a PROXY header (v1 or v2)."`
	ProxyTimeout time.Duration `name:"proxy-timeout" default:"5s" help:"How long a PROXY header may take."`

	TLS              tlsconf.Server `embed:""`
	LoginRequiresTLS config.Switch  `name:"login-requires-tls" default:"no" help:"Take passwords only within TLS."`

	commands `embed:""`

	host      string // Hostname, or the host's
	servers   []target
	choosable choosable
	proxyNets netlist.List
}

// target is an upstream server.
type target struct {
	name string // HOST:PORT, for stamps, status files and the log
	host string // for the certificate
	tls  bool   // from the first byte
}

// saslAny stands for all mechanisms that the upstream server offers.
const saslAny = "ANY"

// notPassed are SASL mechanisms that cannot be passed through: EXTERNAL would show the server who we are, with ANONYMOUS
// a stamp would be anybody's, and the others may protect what follows so that we cannot read it. Nor can those be passed
// whose names end in -PLUS: they are bound to a TLS connection, and there are two.
var notPassed = []string{"EXTERNAL", "ANONYMOUS", "GSSAPI", "GSS-SPNEGO", "GS2-KRB5", "KERBEROS_V4", "DIGEST-MD5"}

// mayPass reports whether a mechanism can be passed through.
func mayPass(mechanism string) bool {
	return mechanism != "" && len(mechanism) <= 20 && // RFC 4422, 3.1
		strings.Trim(mechanism, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == "" &&
		!slices.Contains(notPassed, mechanism) && !strings.HasSuffix(mechanism, "-PLUS")
}

// passes reports whether a mechanism is passed through, if the server knows it.
func (s *settings) passes(mechanism string) bool {
	return mechanism != saslAny && mayPass(mechanism) && (slices.Contains(s.SASL, mechanism) || slices.Contains(s.SASL, saslAny))
}

// Validate checks what a single value does not show, and computes the forms used while running.
func (s *settings) Validate() error {
	s.host = s.Hostname
	if s.host == "" {
		name, err := os.Hostname()
		if err != nil {
			name = "localhost"
		}
		s.host = name
	}
	if strings.ContainsFunc(s.host, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }) {
		return &config.Error{Key: "hostname", Err: fmt.Errorf("%q is no host name", s.host)}
	}
	s.servers = nil
	for _, u := range s.Upstream {
		t, err := parseUpstream(u)
		if err != nil {
			return &config.Error{Key: "upstream", Err: err}
		}
		s.servers = append(s.servers, t)
	}
	var err error
	if s.choosable, err = parseChoosable(s.UserUpstream); err != nil {
		return &config.Error{Key: "user-upstream", Err: err}
	}
	if err := checkDelimiter(s.UserUpstreamDelimiter); err != nil {
		return &config.Error{Key: "user-upstream-delimiter", Err: err}
	}
	nets, err := netlist.Parse(s.ProxyFrom)
	if err != nil {
		return &config.Error{Key: "proxy-from", Err: err}
	}
	s.proxyNets = nets
	for i, m := range s.SASL {
		s.SASL[i] = strings.ToUpper(m)
		if !mayPass(s.SASL[i]) {
			return &config.Error{Key: "sasl", Err: fmt.Errorf("cannot pass through %q", m)}
		}
	}
	if err := s.UpstreamFiles.Check(); err != nil {
		return err
	}
	if err := s.Store.Check(); err != nil {
		return err
	}
	if err := s.checkSockets(); err != nil {
		return &config.Error{Key: "stamps", Err: err}
	}
	if bool(s.ClusterLimits) && !s.Store.Given() {
		return &config.Error{Key: "cluster-limits", Err: errors.New("needs clientip-store")}
	}
	if s.Store.Given() && s.ClientipDir != "" {
		return &config.Error{Key: "clientip-store", Err: errors.New("excludes clientip-dir")}
	}
	if err := s.TLS.Check(listenPOP3, listenPOP3S); err != nil {
		return err
	}
	if len(s.TLS.Cert) == 0 && (len(s.POP3S) > 0 || bool(s.LoginRequiresTLS)) {
		return &config.Error{Key: "tls-cert", Err: errors.New("is needed for pop3s and login-requires-tls")}
	}
	return s.validateNumbers()
}

func (s *settings) validateNumbers() error {
	for key, n := range map[string]int{"max-sessions": s.MaxSessions, "max-sessions-per-address": s.MaxSessionsPerAddress, "max-login-failures": s.MaxLoginFailures} {
		if n < 0 {
			return &config.Error{Key: key, Err: errors.New("must not be negative")}
		}
	}
	for key, n := range map[string]int{"max-login-tries": s.MaxLoginTries, "max-errors": s.MaxErrors} {
		if n < 1 {
			return &config.Error{Key: key, Err: errors.New("must be at least 1")}
		}
	}
	if s.ClientipIPv6Prefix < 1 || s.ClientipIPv6Prefix > 128 {
		return &config.Error{Key: "clientip-ipv6-prefix", Err: errors.New("must be from 1 to 128")}
	}
	for key, d := range map[string]time.Duration{"upstream-timeout": s.UpstreamTO, "connect-timeout": s.ConnectTimeout, "clientip-maxage": s.ClientipMaxage,
		"login-timeout": s.LoginTimeout, "idle-timeout": s.IdleTimeout, "write-timeout": s.WriteTimeout, "proxy-timeout": s.ProxyTimeout} {
		if d <= 0 {
			return &config.Error{Key: key, Err: errors.New("must be more than nothing")}
		}
	}
	for key, d := range map[string]time.Duration{"login-delay": s.LoginDelay, "expire-interval": s.ExpireInterval} {
		if d < 0 {
			return &config.Error{Key: key, Err: errors.New("must not be negative")}
		}
	}
	return nil
}

// parseUpstream reads pop3://HOST[:PORT] or pop3s://HOST[:PORT].
func parseUpstream(text string) (target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return target{}, fmt.Errorf("%q: %w", text, err)
	}
	port := u.Port()
	switch {
	case u.Scheme != "pop3" && u.Scheme != "pop3s":
		return target{}, fmt.Errorf("%q does not begin with pop3:// or pop3s://", text)
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return target{}, fmt.Errorf("%q is not %s://HOST:PORT", text, u.Scheme)
	case port == "" && u.Scheme == "pop3":
		port = "110"
	case port == "":
		port = "995"
	}
	return target{name: net.JoinHostPort(u.Hostname(), port), host: u.Hostname(), tls: u.Scheme == "pop3s"}, nil
}

// listeners are the names that a service manager may pass listeners under.
func (s *settings) listeners() []listen.Request {
	return s.Rights.On([]listen.Request{
		{Name: listenPOP3, Specs: s.POP3, Public: true},
		{Name: listenPOP3S, Specs: s.POP3S, Public: true},
		{Name: "notify", Specs: s.Notify},
		{Name: listenStamps, Specs: s.Stamps, Public: true},
		{Name: "metrics", Specs: s.Metrics},
	})
}

// directories are what the program writes to.
func (s *settings) directories() map[string]daemon.Directory {
	all := map[string]daemon.Directory{}
	for setting, path := range map[string]string{"clientip-dir": s.ClientipDir, "statdir": s.Statdir} {
		if path != "" {
			all[setting] = daemon.Directory{Write: path, Check: func(also ...safedir.Account) error { return safedir.Check(path, also...) }}
		}
	}
	return all
}

// check is what --check can see beyond the settings: that certificates can be read and users exist.
func (s *settings) check() error {
	if _, err := s.loadTLS(); err != nil {
		return err
	}
	if _, err := s.Store.Load(); err != nil {
		return err
	}
	if _, err := sockspec.Users("stamp-users", s.StampUsers); err != nil {
		return err
	}
	_, err := s.Access.Options("", slog.New(slog.DiscardHandler))
	return err
}

// silentTime is how long an upstream server may take to be no reason for a warning.
const silentTime = 5 * time.Second

// warnings says what is most likely not meant, and for --check which upstream servers cannot be connected to; what
// serves says so when it needs them.
func (s *settings) warnings(ctx context.Context, listeners listen.Set) []string {
	all := s.TLS.Warnings(listenPOP3, listenPOP3S)
	if listeners != nil {
		if s.ClientipDir != "" {
			if _, err := os.Stat(s.ClientipDir); err != nil {
				all = append(all, fmt.Sprintf("clientip-dir: no stamps can be written: %v", err))
			}
		}
		return all
	}
	if text := s.Store.Silent(ctx); text != "" {
		all = append(all, text)
	}
	ctx, cancel := context.WithTimeout(ctx, min(silentTime, s.ConnectTimeout))
	defer cancel()
	targets := slices.Clone(s.servers)
	for _, u := range s.UserUpstream {
		if t, err := parseUpstream(u); err == nil {
			targets = append(targets, t)
		}
	}
	for _, t := range targets {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", t.name)
		if err != nil {
			all = append(all, fmt.Sprintf("the upstream server %s does not answer: %v", t.name, err))
			continue
		}
		_ = conn.Close()
	}
	return all
}

// loadTLS reads the files for TLS on both sides; clients is nil without a certificate.
func (s *settings) loadTLS() (*secrets, error) {
	clients, err := s.TLS.Load(listenPOP3, listenPOP3S)
	if err != nil {
		return nil, err
	}
	behind, err := s.UpstreamFiles.Load()
	return &secrets{clients, behind}, err
}

// secrets is what TLS begins with, on both sides.
type secrets struct {
	clients map[string]*tlsconf.Listener // by the name of the listener
	behind  *tls.Config                  // with the upstream server
}
