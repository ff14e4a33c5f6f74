package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/netlist"
	"postern/internal/notify/hub"
	"postern/internal/smtp"
	"postern/internal/sockspec"
	"postern/internal/store"
	"postern/internal/tlsconf"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/gate"
)

// settings are all settings of smtp-proxy: command line, environment and file.
type settings struct {
	daemon.Common `embed:""`
	hub.Access
	listen.Rights

	SMTP       []string `name:"smtp" sep:"none" placeholder:"SPEC" help:"Listen here for mail from other servers. May be given several times."`
	Submission []string `name:"submission" sep:"none" placeholder:"SPEC" help:"Listen here for mail from users (STARTTLS)."`
	SMTPS      []string `name:"smtps" sep:"none" placeholder:"SPEC" help:"Listen here for mail from users over TLS from the first byte."`
	Notify     []string `name:"notify" sep:"none" placeholder:"SPEC" help:"Listen here for programs that want to know what happens."`
	Metrics    []string `name:"metrics" sep:"none" placeholder:"SPEC" help:"Serve Prometheus metrics here."`
	Hostname   string   `name:"hostname" placeholder:"NAME" help:"Our name in greetings and Received fields. Default: the name of the host."`

	UpstreamSettings `embed:""`
	FilterSettings   `embed:""`
	GateSettings     `embed:""`
	LimitSettings    `embed:""`
	MessageSettings  `embed:""`
	TLSSettings      `embed:""`

	Serve   struct{}       `cmd:"" default:"1" hidden:""`
	Explain ExplainCommand `cmd:"" help:"Say what each gate makes of a client, without sending anything."`
	Held    HeldCommand    `cmd:"" help:"List, show, release or drop messages that the filter wants held."`
	Replay  ReplayCommand  `cmd:"" help:"Have copies of messages that were kept, or are in files, scanned again, and compare."`
	Digest  DigestCommand  `cmd:"" name:"log" help:"Sum up the log: what came, what was refused, what was slow, which next hop failed, who was held back."`

	host string // Hostname, or the host's
}

// UpstreamSettings say where mail goes.
type UpstreamSettings struct {
	Upstream            []string      `name:"upstream" sep:"none" placeholder:"URL" default:"smtp://localhost:10025" help:"The next hop: smtp://HOST:PORT, smtps://HOST:PORT, lmtp:/PATH, lmtp://HOST:PORT, exec:COMMAND, maildir:/PATH. Several: the next one when one is down."`
	UpstreamTLS         string        `name:"upstream-tls" enum:"none,may,require,verify" default:"may" help:"TLS towards the next hop: none, may, require or verify."`
	UpstreamHelo        string        `name:"upstream-helo" placeholder:"NAME" help:"Name to greet the next hop with. Default: hostname."`
	UpstreamSource      string        `name:"upstream-source" placeholder:"ADDRESS" help:"Local address of connections to the next hop."`
	UpstreamClientIP    string        `name:"upstream-client-ip" enum:"none,xclient,proxy1,proxy2" default:"none" help:"How to tell the next hop who the client is: none, xclient, proxy1 or proxy2."`
	UpstreamConnections int           `name:"upstream-connections" default:"0" placeholder:"N" help:"Most connections to one server at a time; 0 for no limit."`
	UpstreamShare       int           `name:"upstream-share" default:"0" placeholder:"N" help:"Most connections to one server at a time for clients of one address; 0 for a quarter of upstream-connections, or 50 if that has no limit."`
	UpstreamIdle        time.Duration `name:"upstream-idle" default:"5s" help:"How long a client may say nothing before its connection to the next hop is given to others; its envelope is issued anew when it goes on. 0: it keeps it."`
	LMTPRecipients      int           `name:"lmtp-recipients" default:"1" placeholder:"N" help:"Most recipients of a message for an lmtp: server. With more than one, a message that some of them did not get is delivered to the others again when the client tries again."`
	UpstreamTimeout     time.Duration `name:"upstream-timeout" default:"5m" help:"How long the next hop may take for a reply; four times this for the one after the content, RFC 5321 4.5.3.2."`
	ConnectTimeout      time.Duration `name:"connect-timeout" default:"30s" help:"How long connecting to the next hop may take."`

	UpstreamFiles tlsconf.Client `embed:""` // for TLS with it
}

// FilterSettings say how messages are filtered.
type FilterSettings struct {
	Multiplexor       string        `name:"multiplexor" placeholder:"SPEC" help:"Request socket of the multiplexor. Without it nothing is filtered."`
	MultiplexorNotify string        `name:"multiplexor-notify" placeholder:"SPEC" help:"Notification socket of the multiplexor, to know without asking whether a worker is free."`
	Spool             string        `name:"spool" default:"/var/spool/postern" placeholder:"DIR" help:"Where working directories are made."`
	SpoolGroup        string        `name:"spool-group" placeholder:"GROUP" help:"Group of the workers, if they run as another account: working directories become setgid and group-writable."`
	KeepFailed        config.Switch `name:"keep-failed" default:"no" help:"Keep a copy of the working directory of a message whose scan failed."`
	KeepSlow          time.Duration `name:"keep-slow" default:"0s" placeholder:"TIME" help:"Keep that of a message whose scan took so long; 0 for none."`
	KeepSample        config.Share  `name:"keep-sample" default:"0%" placeholder:"PERCENT" help:"Keep that of some messages, by chance: so many of a hundred."`
	KeepDir           string        `name:"keep-dir" placeholder:"DIR" help:"Where they are kept. Default: the directory kept in the spool."`
	KeepMax           int           `name:"keep-max" default:"100" placeholder:"N" help:"Most messages that are kept; the oldest go."`
	KeepMaxSize       config.Bytes  `name:"keep-max-size" default:"100M" placeholder:"SIZE" help:"Most bytes that are kept; the oldest go."`
	ShadowMultiplexor string        `name:"shadow-multiplexor" placeholder:"SPEC" help:"Request socket of a second multiplexor, whose verdicts about copies of some messages are compared with those of the first, and never used."`
	ShadowShare       config.Share  `name:"shadow-share" default:"100%" placeholder:"PERCENT" help:"How many of a hundred messages it sees, by chance."`
	ShadowIgnore      []string      `name:"shadow-ignore" sep:"none" placeholder:"FIELD" help:"Header field that may differ. May be given several times."`
	Relayok           config.Switch `name:"relayok" default:"no" help:"Ask the filter at connect."`
	Helook            config.Switch `name:"helook" default:"no" help:"Ask the filter at HELO and EHLO."`
	Senderok          config.Switch `name:"senderok" default:"no" help:"Ask the filter at MAIL."`
	Recipok           config.Switch `name:"recipok" default:"no" help:"Ask the filter at RCPT."`
	Scan              config.Switch `name:"scan" default:"yes" help:"Have messages scanned."`
	FilterTimeout     time.Duration `name:"filter-timeout" default:"8m" help:"How long the filter may take for a message, once the client has sent all of it; for other answers at most four minutes."`
	FilterMaxDelay    time.Duration `name:"filter-max-delay" default:"1m" help:"Longest delay of a reply that a filter may ask for."`
	OnFailure         string        `name:"on-failure" default:"tempfail" placeholder:"POLICY" help:"What to do when the filter does not work: tempfail, accept (unfiltered) or reject; or for each question, such as scan=tempfail helook=accept."`
	Hold              string        `name:"hold" placeholder:"URL" help:"Where messages go that the filter wants held, as with upstream: such as maildir:/PATH. Default: they are refused for now."`
	WorkerGate        config.Switch `name:"worker-gate" default:"yes" help:"Refuse new sessions while no worker is free and the multiplexor's queue is full."`
	ScannedBy         string        `name:"scanned-by" placeholder:"TEXT" help:"Text of an X-Scanned-By field added to scanned messages. Default: no such field."`
	ClientLookup      config.Switch `name:"client-lookup" default:"yes" help:"Look up the client's name in the DNS when the filter or a status file wants it."`

	onFailure filter.OnFailure
}

// GateSettings say who may come in.
type GateSettings struct {
	Maxloadavg         string         `name:"maxloadavg" default:"10 0 0" placeholder:"L1 L5 L15" help:"Limits for the load averages of 1, 5 and 15 minutes; 0 switches one off. A session is refused when all limits are reached."`
	LoadavgFile        string         `name:"loadavg-file" default:"/proc/loadavg" placeholder:"FILE" help:"Where the load averages are read."`
	MaxPressure        string         `name:"max-pressure" default:"" placeholder:"NAME=PERCENT" help:"Refuse sessions while a pressure value of the kernel is reached: cpu=, memory= or io= and a percentage, several separated by spaces."`
	PressureDir        string         `name:"pressure-dir" default:"/proc/pressure" placeholder:"DIR" help:"Where pressure values are read."`
	ClientipDir        string         `name:"clientip-dir" placeholder:"DIR" help:"Only clients with a fresh stamp in this directory may send (POP3 before SMTP)."`
	Store              store.Settings `embed:""`
	StoreDown          string         `name:"store-down" enum:"closed,open" default:"closed" help:"While the store does not answer: closed refuses clients that need a stamp to connect, open lets them in."`
	ClientipIPv6Prefix int            `name:"clientip-ipv6-prefix" default:"128" placeholder:"BITS" help:"How many bits of an IPv6 address a stamp is for: 64 for a whole network."`
	ClientipSenders    string         `name:"clientip-senders" placeholder:"FILE" help:"Which users may send as whom, once they have fetched mail: a user and its addresses or @domains on each line."`
	ClientipMaxage     time.Duration  `name:"clientip-maxage" default:"10m" help:"How long a stamp is fresh."`
	ClientipExempt     []string       `name:"clientip-exempt" sep:"none" placeholder:"NETWORK" help:"Networks that need no stamp."`
	ClientipOwner      string         `name:"clientip-owner" placeholder:"USER" help:"Only stamps owned by this user count."`
	ClientipScope      string         `name:"clientip-scope" enum:"session,relay" default:"session" help:"session: a stamp is needed to connect; relay: only for recipients outside local-domains."`
	LocalDomains       []string       `name:"local-domains" sep:"none" placeholder:"DOMAIN" help:"Domains whose recipients are ours: mail for others is relayed. .example.org stands for all below it."`
	RefuseRelay        config.Switch  `name:"refuse-relay" default:"no" help:"Relay only for clients in relay-clients, with a stamp, or logged in."`
	RelayClients       []string       `name:"relay-clients" sep:"none" placeholder:"NETWORK" help:"Networks whose clients may relay."`
	RefuseFile         string         `name:"refuse-file" placeholder:"FILE" help:"While this file exists new sessions get 421 with its first line."`
	Statdir            string         `name:"statdir" placeholder:"DIR" help:"Write a status file per session here."`

	shared     *store.Options // nil without clientip-store
	senders    gate.Senders
	load       gate.LoadLimits
	pressure   []gate.PressureLimit
	exemptNets netlist.List
	relayNets  netlist.List
	local      gate.LocalDomains
}

// LimitSettings bound what clients can use up.
type LimitSettings struct {
	MaxSessions           int           `name:"max-sessions" default:"10000" placeholder:"N" help:"Most sessions at a time; 0 for no limit."`
	MaxSessionsPerAddress int           `name:"max-sessions-per-address" default:"100" placeholder:"N" help:"Most sessions at a time from one address (IPv6: from one /64); 0 for no limit."`
	MaxRatePerAddress     float64       `name:"max-rate-per-address" default:"0" placeholder:"N" help:"Most new sessions per second from one address (IPv6: from one /64); 0 for no limit."`
	LimitExempt           []string      `name:"limit-exempt" sep:"none" placeholder:"NETWORK" help:"Networks without limits per address."`
	MaxRecipients         int           `name:"max-recipients" default:"1000" placeholder:"N" help:"Most recipients of a message."`
	MaxTransactions       int           `name:"max-transactions" default:"1000" placeholder:"N" help:"Most messages of a session; 0 for no limit."`
	MaxErrors             int           `name:"max-errors" default:"10" placeholder:"N" help:"Session ends after so many commands in error."`
	MaxRefusals           int           `name:"max-refusals" default:"20" placeholder:"N" help:"Session ends after so many senders, recipients and messages were refused for good."`
	ErrorDelay            time.Duration `name:"error-delay" default:"1s" placeholder:"TIME" help:"Wait so long after each error and each refusal beyond half of max-errors or max-refusals."`
	MaxLoginFailures      int           `name:"max-login-failures" default:"20" placeholder:"N" help:"Failed logins from one address within ten minutes after which AUTH is refused there; 0 for no limit."`
	MaxRefusalsPerAddress int           `name:"max-refusals-per-address" default:"0" placeholder:"N" help:"Senders, recipients and messages refused for good to one address within ten minutes after which it may not connect; 0 for no limit."`
	ClusterLimits         config.Switch `name:"cluster-limits" default:"no" help:"Count sessions, their rate, refusals and failed logins over all gateways, in clientip-store."`
	LoginDelay            time.Duration `name:"login-delay" default:"1s" placeholder:"TIME" help:"How long the answer to the first failed login from an address waits; twice as long for each further one, up to 30s."`
	MaxJunk               int           `name:"max-junk" default:"100" placeholder:"N" help:"Session ends after so many commands without use (NOOP, RSET, VRFY, HELP)."`
	MaxMessageSize        config.Bytes  `name:"max-message-size" default:"100M" placeholder:"SIZE" help:"Largest message; 0 for no limit of our own."`
	MaxHeaderSize         config.Bytes  `name:"max-header-size" default:"1M" placeholder:"SIZE" help:"Largest message header."`
	MaxLineLength         int           `name:"max-line-length" default:"0" placeholder:"BYTES" help:"Longest line of a message; 0 for no limit."`
	MaxMemory             config.Bytes  `name:"max-memory" default:"0" placeholder:"SIZE" help:"Most bytes held for clients while their messages come and go; 0 for a quarter of the memory of the machine, or of the control group."`
	CommandTimeout        time.Duration `name:"command-timeout" default:"5m" help:"How long a client may take for a command line."`
	DataTimeout           time.Duration `name:"data-timeout" default:"3m" help:"How long a client may send nothing within a message."`
	MessageTimeout        time.Duration `name:"message-timeout" default:"1h" help:"How long a client may take for the whole content of a message; longer for large ones if min-data-rate is kept."`
	MinDataRate           config.Bytes  `name:"min-data-rate" default:"0" placeholder:"BYTES" help:"Fewest bytes of content per second, measured over 30 seconds; 0 for none."`
	WriteTimeout          time.Duration `name:"write-timeout" default:"1m" help:"How long a client may take to read a reply."`
	GreetingDelay         time.Duration `name:"greeting-delay" default:"0s" help:"Wait so long before the greeting; clients that talk before it are refused."`

	limitExemptNets netlist.List
}

// MessageSettings say what happens to messages.
type MessageSettings struct {
	Droppath             config.Switch `name:"droppath" default:"no" help:"Remove all Received fields and add none."`
	MaxHops              int           `name:"max-hops" default:"100" placeholder:"N" help:"Refuse messages with more Received fields."`
	AddressCheck         string        `name:"address-check" enum:"strict,rfc,off" default:"rfc" help:"Which envelope addresses are taken: strict, rfc or off."`
	BareNewline          string        `name:"bare-newline" enum:"normalize,reject" default:"normalize" help:"What to do with LF without CR: normalize or reject."`
	BareNewlineReject    []string      `name:"bare-newline-reject" sep:"none" placeholder:"NETWORK" help:"Networks for which bare-newline is reject."`
	BareNewlineNormalize []string      `name:"bare-newline-normalize" sep:"none" placeholder:"NETWORK" help:"Networks for which bare-newline is normalize."`

	bareReject, bareNormalize netlist.List
}

// TLSSettings are about TLS with clients, and about who may speak for others.
type TLSSettings struct {
	TLS             tlsconf.Server `embed:""`
	AuthRequiresTLS config.Switch  `name:"auth-requires-tls" default:"yes" help:"Offer AUTH only within TLS."`
	ProxyFrom       []string       `name:"proxy-from" sep:"none" placeholder:"NETWORK" help:"Load balancers: connections from here begin with a PROXY header (v1 or v2)."`
	ProxyTimeout    time.Duration  `name:"proxy-timeout" default:"5s" help:"How long a PROXY header may take."`
	XClientFrom     []string       `name:"xclient-from" sep:"none" placeholder:"NETWORK" help:"Clients that may use XCLIENT."`
	XForwardFrom    []string       `name:"xforward-from" sep:"none" placeholder:"NETWORK" help:"Servers that may use XFORWARD to tell the filter and the log who their client is."`
	XClientLogin    config.Switch  `name:"xclient-login" default:"no" help:"Believe the LOGIN attribute of XCLIENT."`

	proxyNets, xclientNets, xforwardNets netlist.List
}

// Validate checks what a single value does not show, and computes the forms used while running.
func (s *settings) Validate() error {
	if s.host = s.Hostname; s.host == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		s.host = name
	}
	if !smtp.IsGreetingName(s.host) {
		return fmt.Errorf("hostname: %q is no host name", s.host)
	}
	if err := s.UpstreamFiles.Check(); err != nil {
		return err
	}
	if err := s.TLS.Check(mailListeners...); err != nil {
		return err
	}
	if err := s.checkStamps(); err != nil {
		return err
	}
	if len(s.SMTPS) > 0 && len(s.TLS.Cert) == 0 {
		return errors.New("smtps: needs tls-cert")
	}
	var err error
	if s.onFailure, err = filter.ParseOnFailure(s.OnFailure); err != nil {
		return fmt.Errorf("on-failure: %w", err)
	}
	if s.load, err = gate.ParseLoadLimits(s.Maxloadavg); err != nil {
		return fmt.Errorf("maxloadavg: %w", err)
	}
	if s.pressure, err = gate.ParsePressureLimits(s.MaxPressure); err != nil {
		return fmt.Errorf("max-pressure: %w", err)
	}
	if len(s.pressure) > 0 && runtime.GOOS != "linux" {
		return errors.New("max-pressure: not available on this system")
	}
	if err := s.checkNumbers(); err != nil {
		return err
	}
	if err := s.checkPlaces(); err != nil {
		return err
	}
	if err := s.checkKept(); err != nil {
		return err
	}
	if s.local, err = gate.ParseLocalDomains(s.LocalDomains); err != nil {
		return fmt.Errorf("local-domains: %w", err)
	}
	return s.parseNetworks()
}

func (s *settings) checkNumbers() error {
	for _, n := range []struct {
		key   string
		value int64
		least int64
	}{
		{"max-sessions", int64(s.MaxSessions), 0},
		{"max-sessions-per-address", int64(s.MaxSessionsPerAddress), 0},
		{"max-recipients", int64(s.MaxRecipients), 1},
		{"max-transactions", int64(s.MaxTransactions), 0},
		{"max-errors", int64(s.MaxErrors), 1},
		{"max-refusals", int64(s.MaxRefusals), 1},
		{"error-delay", int64(s.ErrorDelay), 0},
		{"max-refusals-per-address", int64(s.MaxRefusalsPerAddress), 0},
		{"max-login-failures", int64(s.MaxLoginFailures), 0},
		{"login-delay", int64(s.LoginDelay), 0},
		{"max-junk", int64(s.MaxJunk), 1},
		{"max-message-size", int64(s.MaxMessageSize), 0},
		{"max-header-size", int64(s.MaxHeaderSize), 1024},
		{"max-line-length", int64(s.MaxLineLength), 0},
		{"max-memory", int64(s.MaxMemory), 0},
		{"max-hops", int64(s.MaxHops), 1},
		{"min-data-rate", int64(s.MinDataRate), 0},
		{"upstream-connections", int64(s.UpstreamConnections), 0},
		{"upstream-share", int64(s.UpstreamShare), 0},
		{"upstream-idle", int64(s.UpstreamIdle), 0},
		{"lmtp-recipients", int64(s.LMTPRecipients), 1},
		{"command-timeout", int64(s.CommandTimeout), int64(time.Second)},
		{"data-timeout", int64(s.DataTimeout), int64(time.Second)},
		{"message-timeout", int64(s.MessageTimeout), int64(time.Second)},
		{"write-timeout", int64(s.WriteTimeout), int64(time.Second)},
		{"proxy-timeout", int64(s.ProxyTimeout), int64(time.Second)},
		{"upstream-timeout", int64(s.UpstreamTimeout), int64(time.Second)},
		{"connect-timeout", int64(s.ConnectTimeout), int64(time.Second)},
		{"filter-timeout", int64(s.FilterTimeout), int64(time.Second)},
		{"keep-max", int64(s.KeepMax), 1},
		{"keep-max-size", int64(s.KeepMaxSize), 1024},
		{"filter-max-delay", int64(s.FilterMaxDelay), 0},
		{"clientip-maxage", int64(s.ClientipMaxage), int64(time.Second)},
		{"greeting-delay", int64(s.GreetingDelay), 0},
	} {
		if n.value < n.least {
			return fmt.Errorf("%s: value is too small", n.key)
		}
	}
	if s.MaxRatePerAddress < 0 {
		return errors.New("max-rate-per-address: value is too small")
	}
	return nil
}

// checkPlaces looks at the names of servers and sockets, of which none is opened.
func (s *settings) checkPlaces() error {
	if _, err := s.upstreamConfig(); err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	if s.Hold != "" {
		if err := s.holdConfig().Check(); err != nil {
			return fmt.Errorf("hold: %w", err)
		}
	}
	for _, place := range []struct{ key, spec string }{{"multiplexor", s.Multiplexor}, {"multiplexor-notify", s.MultiplexorNotify}, {"shadow-multiplexor", s.ShadowMultiplexor}} {
		if place.spec == "" {
			continue
		}
		spec, err := sockspec.Parse(place.spec)
		if err == nil && spec.IsUnix() && !filepath.IsAbs(spec.Address) {
			err = fmt.Errorf("%q is no absolute path", spec.Address)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", place.key, err)
		}
	}
	return nil
}

func (s *settings) parseNetworks() error {
	for _, list := range []struct {
		key  string
		text []string
		nets *netlist.List
	}{
		{"clientip-exempt", s.ClientipExempt, &s.exemptNets},
		{"relay-clients", s.RelayClients, &s.relayNets},
		{"limit-exempt", s.LimitExempt, &s.limitExemptNets},
		{"bare-newline-reject", s.BareNewlineReject, &s.bareReject},
		{"bare-newline-normalize", s.BareNewlineNormalize, &s.bareNormalize},
		{"proxy-from", s.ProxyFrom, &s.proxyNets},
		{"xclient-from", s.XClientFrom, &s.xclientNets},
		{"xforward-from", s.XForwardFrom, &s.xforwardNets},
	} {
		nets, err := netlist.Parse(list.text)
		if err != nil {
			return fmt.Errorf("%s: %w", list.key, err)
		}
		*list.nets = nets
	}
	return nil
}

// checkStamps looks at where stamps are and reads the files that say more.
func (s *settings) checkStamps() (err error) {
	if err := s.Store.Check(); err != nil {
		return err
	}
	if bool(s.ClusterLimits) && !s.Store.Given() {
		return &config.Error{Key: "cluster-limits", Err: errors.New("needs clientip-store")}
	}
	switch {
	case s.Store.Given() && s.ClientipDir != "":
		return &config.Error{Key: "clientip-store", Err: errors.New("excludes clientip-dir")}
	case s.Store.Given() && s.ClientipOwner != "":
		return &config.Error{Key: "clientip-owner", Err: errors.New("is for stamps in a directory")}
	case s.StoreDown == "open" && s.ClientipScope == "relay":
		return &config.Error{Key: "store-down", Err: errors.New("open would let anybody relay, with clientip-scope relay")}
	case s.ClientipIPv6Prefix < 1 || s.ClientipIPv6Prefix > 128:
		return &config.Error{Key: "clientip-ipv6-prefix", Err: errors.New("must be from 1 to 128")}
	case s.ClientipSenders != "" && !s.stamps():
		return &config.Error{Key: "clientip-senders", Err: errors.New("needs clientip-dir or clientip-store")}
	case s.ClientipSenders != "":
		if s.senders, err = gate.ReadSenders(s.ClientipSenders); err != nil {
			return &config.Error{Key: "clientip-senders", Err: err}
		}
	}
	s.shared, err = s.Store.Load()
	return err
}

// stamps reports whether there is a place for stamps.
func (s *settings) stamps() bool { return s.ClientipDir != "" || s.Store.Given() }
