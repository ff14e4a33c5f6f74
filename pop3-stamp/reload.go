package main

import (
	"errors"

	"postern/internal/daemon"
)

// fixed are the settings that are looked at once, at the start.
var fixed = []string{
	"pop3", "pop3s", "notify", "notify-users", "notify-limit", "stamps", "stamp-users", "metrics", "socket-mode", "socket-group",
	"user", "allow-root", "no-new-privs", "pidfile", "log", "log-level", "log-format", "syslog-facility", "syslog-tag", "drain-timeout",
	"clientip-dir", "clientip-store", "clientip-store-auth", "clientip-store-ca", "clientip-store-cert", "clientip-store-key",
	"clientip-store-timeout", "clientip-ipv6-prefix", "clientip-maxage", "stamp-on-connect", "cluster-limits", "expire-interval", "statdir",
}

// use puts settings into force for sessions that begin from now on.
func (srv *server) use(s *settings) {
	srv.inForce.Store(s)
	srv.limits.set(s)
}

// reload reads settings, lists and certificates again. What cannot change while running stays as it is, and is named; if
// anything is wrong, everything stays.
func (srv *server) reload(env *daemon.Env) {
	later, err := srv.tryReload(env)
	env.Reloaded(err, later)
}

func (srv *server) tryReload(env *daemon.Env) (later []string, err error) {
	fresh := &settings{}
	if later, err = env.Reread(fresh, fixed); err != nil {
		return nil, err
	}
	conf, err := fresh.loadTLS()
	if err == nil && conf.clients == nil && len(env.Listeners[listenPOP3S]) > 0 {
		err = errors.New("a listener pop3s needs tls-cert")
	}
	if err != nil {
		return nil, err
	}
	srv.tls.Store(conf)
	srv.use(fresh)
	return later, nil
}
