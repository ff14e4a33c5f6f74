package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"postern/board/postern-board/watch"
	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/notify/hub"
	"postern/internal/sockspec"
	"postern/internal/tlsconf"
)

// settings are all settings of postern-board: command line, environment and file.
type settings struct {
	daemon.Common `embed:""`
	hub.Access
	listen.Rights

	HTTP    []string `name:"http" placeholder:"SPEC" help:"Listen here for browsers of this machine, or a reverse proxy: a UNIX socket, or TCP on loopback. May be given several times."`
	HTTPS   []string `name:"https" placeholder:"SPEC" help:"Listen here for browsers over TLS. Needs tls-cert, and password-file or tls-client-cert require."`
	Notify  []string `name:"notify" placeholder:"SPEC" help:"Listen here for programs that want to know what becomes of a reload."`
	Metrics []string `name:"metrics" placeholder:"SPEC" help:"Serve Prometheus metrics here."`

	Daemon   []string      `name:"daemon" sep:"none" placeholder:"GATEWAY KIND SOCKET..." help:"Watch this daemon: the name of its machine, its program, and notify=SPEC, metrics=SPEC, and for a multiplexor status=SPEC. May be given several times."`
	Interval time.Duration `name:"interval" default:"5s" help:"How often metrics are read and multiplexors asked; as long may an answer take."`
	History  int           `name:"history" default:"100000" placeholder:"N" help:"How many events are kept, and as many refusals."`

	Host         []string `name:"host" sep:"none" placeholder:"NAME" help:"Name by which browsers may call this server, beside localhost and addresses. May be given several times."`
	PasswordFile string   `name:"password-file" placeholder:"FILE" help:"Who may look: lines of USER:BCRYPT, as htpasswd -B makes them. Default: whoever can connect to http."`

	TLS tlsconf.Server `embed:""`

	targets []watch.Target
}

// Names of the listeners.
const (
	listenHTTP    = "http"
	listenHTTPS   = "https"
	listenNotify  = "notify"
	listenMetrics = "metrics"
)

// Bounds of the settings.
const (
	minInterval            = time.Second
	minHistory, maxHistory = 100, 10_000_000
	maxDaemons             = 1000
)

// Validate checks what a single value does not show.
func (s *settings) Validate() error {
	var err error
	if s.targets, err = watch.ParseTargets(s.Daemon); err != nil {
		return &config.Error{Key: "daemon", Err: err}
	}
	if len(s.targets) > maxDaemons {
		return &config.Error{Key: "daemon", Err: fmt.Errorf("more than %d", maxDaemons)}
	}
	if s.Interval < minInterval {
		return &config.Error{Key: "interval", Err: fmt.Errorf("must be %v at least", minInterval)}
	}
	if s.History < minHistory || s.History > maxHistory {
		return &config.Error{Key: "history", Err: fmt.Errorf("must be from %d to %d", minHistory, maxHistory)}
	}
	for _, name := range s.Host {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:@[]", r) }) {
			return &config.Error{Key: "host", Err: fmt.Errorf("%q is no name of a host", name)}
		}
	}
	for _, text := range s.HTTP {
		if spec, err := sockspec.Parse(text); err == nil && !spec.IsLoopback() {
			return &config.Error{Key: "http", Err: fmt.Errorf("%s: %w", text, errPlain)}
		}
	}
	if err := s.TLS.Check(listenHTTPS); err != nil {
		return err
	}
	if len(s.HTTPS) > 0 {
		return s.checkHTTPS()
	}
	return nil
}

// errPlain is why http is not listened for everywhere.
var errPlain = errors.New("other machines can reach it, and nothing is encrypted; use https, or have a reverse proxy connect to loopback or a UNIX socket")

// checkHTTPS says whether there is TLS, and a way to know who looks.
func (s *settings) checkHTTPS() error {
	if len(s.TLS.Cert) == 0 {
		return &config.Error{Key: "tls-cert", Err: errors.New("is needed for https")}
	}
	if s.PasswordFile == "" && !s.TLS.Requires(listenHTTPS) {
		return &config.Error{Key: "password-file", Err: errors.New("is needed for https, unless clients must have certificates")}
	}
	return nil
}

// passed looks at the listeners of a service manager, which the settings do not show.
func (s *settings) passed(listeners listen.Set) error {
	for _, l := range listeners[listenHTTP] {
		if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
			return fmt.Errorf("listener http %s: %w", addr, errPlain)
		}
	}
	if len(listeners[listenHTTPS]) > 0 {
		return s.checkHTTPS()
	}
	return nil
}

// listeners are the names that a service manager may pass listeners under.
func (s *settings) listeners() []listen.Request {
	return s.Rights.On([]listen.Request{
		{Name: listenHTTP, Specs: s.HTTP, Public: true},
		{Name: listenHTTPS, Specs: s.HTTPS, Public: true},
		{Name: listenNotify, Specs: s.Notify},
		{Name: listenMetrics, Specs: s.Metrics},
	})
}

func (s *settings) passwordFiles() []string {
	if s.PasswordFile == "" {
		return nil
	}
	return []string{s.PasswordFile}
}

// check is what --check can see beyond the settings: that files can be read and users exist.
func (s *settings) check() error {
	if _, err := s.load(); err != nil {
		return err
	}
	_, err := s.Access.Options("", slog.New(slog.DiscardHandler))
	return err
}

// load reads the files.
func (s *settings) load() (*access, error) {
	clients, err := s.TLS.Load(listenHTTPS)
	if err != nil {
		return nil, err
	}
	a := &access{tls: clients[listenHTTPS], hosts: map[string]bool{}}
	for _, name := range s.Host {
		a.hosts[strings.ToLower(name)] = true
	}
	if s.PasswordFile != "" {
		if a.users, err = readPasswords(s.PasswordFile); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// warnings says what is most likely not meant.
func (s *settings) warnings(context.Context, listen.Set) []string {
	all := s.TLS.Warnings(listenHTTPS)
	if len(s.targets) == 0 {
		all = append(all, "no daemon is set: there will be nothing to see")
	}
	return all
}
