package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postern/board/postern-board/watch"
	"postern/internal/config"
	"postern/internal/connlimit"
	"postern/internal/daemon"
	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/tlsconf"
)

// Limits of the web server: whoever can reach it may ask, but neither in numbers nor slowly.
const (
	maxConnections = 256
	maxHeader      = 16 << 10
	readTimeout    = 10 * time.Second
	writeTimeout   = 10 * time.Second // for each page, and each piece of a stream
	idleTimeout    = 2 * time.Minute
)

// access says who may look. A reload replaces it.
type access struct {
	hosts map[string]bool   // names that browsers may call us by
	users *passwords        // nil: whoever can connect
	tls   *tlsconf.Listener // of https
}

// server is the web server and what it shows.
type server struct {
	conf   *settings // of the start
	log    *slog.Logger
	access atomic.Pointer[access]
	logins connlimit.Logins
	board  *watch.Board
	pages  *pages
	hub    *hub.Hub
	meters *meters
	ending chan struct{} // closed when streams are to end

	patience time.Duration // how long a browser may read nothing
}

// failedLogins is how many wrong passwords may come from one address in ten minutes.
const failedLogins = 20

// open does what may need the rights of the user who started the program.
func (srv *server) open(env *daemon.Env) error {
	if err := srv.conf.passed(env.Listeners); err != nil {
		return err
	}
	a, err := srv.conf.load()
	if err != nil {
		return err
	}
	srv.access.Store(a)
	return nil
}

// prepare makes what lives as long as the server.
func (srv *server) prepare(log *slog.Logger) error {
	s := srv.conf
	srv.log = log
	srv.ending = make(chan struct{})
	srv.patience = writeTimeout
	srv.logins.Set(failedLogins, 0)
	options, err := s.Access.Options(string(notify.LetterReread), log)
	if err != nil {
		return err
	}
	srv.hub = hub.New(options)
	srv.board = watch.New(s.targets, watch.Options{Interval: s.Interval, History: s.History, Log: log})
	srv.pages = newPages(srv.board)
	srv.meters = newMeters(srv)
	return nil
}

// serve watches daemons and answers browsers until ctx ends.
func (srv *server) serve(ctx context.Context, env *daemon.Env) error {
	if err := srv.prepare(env.Log); err != nil {
		return &config.Error{Err: err}
	}
	process := env.Process
	process.Expires = func() time.Time { return srv.access.Load().tls.Expires() }
	srv.meters.registry.Process(process)
	watching, stop := context.WithCancel(context.Background())
	var watchers, servers sync.WaitGroup
	watchers.Go(func() { srv.board.Run(watching) })
	env.Tell = srv.hub.Reloaded
	env.Ready()
	web := srv.web()
	failed := make(chan error, 16)
	for name, group := range env.Listeners {
		for _, l := range group {
			servers.Go(func() { srv.listen(ctx, web, name, l, failed) })
		}
	}
	err := srv.mind(ctx, env, failed)
	close(srv.ending)
	if err == nil {
		err = web.Shutdown(context.Background()) // the skeleton has the limit for that
	}
	_ = env.Listeners.Close()
	_ = web.Close()
	srv.hub.Close()
	servers.Wait()
	stop()
	watchers.Wait()
	return err
}

// web makes the web server.
func (srv *server) web() *http.Server {
	return &http.Server{
		Handler:           srv.guard(srv.routes()),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: min(readTimeout, srv.conf.TLS.Timeout), // it bounds handshakes too
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers' mistakes
	}
}

// listen serves one listener.
func (srv *server) listen(ctx context.Context, web *http.Server, name string, l net.Listener, failed chan<- error) {
	run := func() error { return web.Serve(connlimit.Listen(l, maxConnections)) }
	switch name {
	case listenHTTPS:
		run = func() error { return web.Serve(tls.NewListener(connlimit.Listen(l, maxConnections), srv.tls())) }
	case listenNotify:
		run = func() error { return srv.hub.Serve(l) }
	case listenMetrics:
		run = func() error { return srv.meters.registry.Serve(l) }
	}
	err := run()
	if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return
	}
	select {
	case failed <- fmt.Errorf("listener %s: %w", name, err):
	default:
	}
}

// tls gives each client the certificates of the last reload.
func (srv *server) tls() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return srv.access.Load().tls.Config, nil
	}}
}

// mind does what comes up while the server runs, until ctx ends or a listener fails.
func (srv *server) mind(ctx context.Context, env *daemon.Env, failed <-chan error) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
			srv.tellStatus(env)
		case <-env.Pulse:
		case <-env.Hangup:
			srv.reload(env)
		}
	}
}

// statusEvery is how often the service manager hears how many daemons are watched.
const statusEvery = 10 * time.Second

func (srv *server) tellStatus(env *daemon.Env) {
	reachable, all := srv.board.Reachable()
	env.Status(fmt.Sprintf("%d of %d daemons can be watched, %d pages are open", reachable, all, srv.meters.viewers.Load()))
}

// fixed are the settings that are looked at once, at the start.
var fixed = []string{
	"http", "https", "notify", "notify-users", "notify-limit", "metrics", "socket-mode", "socket-group", "daemon", "interval", "history",
	"user", "allow-root", "no-new-privs", "pidfile", "log", "log-level", "log-format", "syslog-facility", "syslog-tag", "drain-timeout", "tls-timeout",
}

// reload reads names, passwords and certificates again. If anything is wrong, everything stays.
func (srv *server) reload(env *daemon.Env) {
	later, err := srv.tryReload(env)
	env.Reloaded(err, later)
}

func (srv *server) tryReload(env *daemon.Env) (later []string, err error) {
	fresh := &settings{}
	if later, err = env.Reread(fresh, fixed); err != nil {
		return nil, err
	}
	if err := fresh.passed(env.Listeners); err != nil {
		return nil, err
	}
	a, err := fresh.load()
	if err != nil {
		return nil, err
	}
	srv.access.Store(a)
	return later, nil
}
