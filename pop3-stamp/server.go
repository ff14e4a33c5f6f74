package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/notify/hub"
	"postern/internal/sockspec"
	"postern/internal/statfile"
	"postern/internal/store"
)

// Names of the listeners for clients.
const (
	listenPOP3  = "pop3"
	listenPOP3S = "pop3s"
)

// listenStamps is the name of the listeners for programs that ask for stamps.
const listenStamps = "stamps"

// server serves all sessions.
type server struct {
	conf         *settings // of the start
	inForce      atomic.Pointer[settings]
	log          *slog.Logger
	tls          atomic.Pointer[secrets]
	shared       *store.Options // nil without clientip-store
	store        *place         // nil without stamps
	stats        *statfile.Dir  // nil without statdir
	stamps       sync.Mutex     // so that events are in the order of what they tell
	stampUsers   []uint32       // who may ask for them
	requests     atomic.Int32   // for them, that are being served
	hub          *hub.Hub
	limits       limits
	capabilities capabilities // of upstream servers
	meters       *meters

	number   atomic.Uint64  // of the last session
	ending   sync.WaitGroup // sessions
	wg       sync.WaitGroup // all else that goes on
	mu       sync.Mutex
	sessions map[*session]struct{}
	draining bool
}

// open does what may need the rights of the user who started the program.
func (srv *server) open(env *daemon.Env) error {
	conf, err := srv.conf.loadTLS()
	if err != nil {
		return err
	}
	srv.tls.Store(conf)
	if srv.shared, err = srv.conf.Store.Load(); err != nil {
		return err
	}
	if len(env.Listeners[listenPOP3S]) > 0 && conf.clients == nil {
		return errors.New("a listener pop3s needs tls-cert")
	}
	return nil
}

// prepare makes what lives as long as the server.
func (srv *server) prepare(log *slog.Logger) error {
	s := srv.conf
	srv.log = log
	srv.sessions = map[*session]struct{}{}
	srv.use(s)
	options, err := s.Access.Options("PXWR", log)
	if err != nil {
		return err
	}
	srv.hub = hub.New(options)
	if srv.stampUsers, err = sockspec.Users("stamp-users", s.StampUsers); err != nil {
		return err
	}
	srv.meters = newMeters(srv)
	if srv.store, err = s.openPlace(srv.shared, log); err != nil {
		return err
	}
	if bool(s.ClusterLimits) {
		srv.limits.share(srv.store.client)
		srv.limits.set(s)
	}
	if srv.store == nil {
		log.Warn("no stamps are written, because neither clientip-dir nor clientip-store is set")
	}
	if s.Statdir != "" {
		if srv.stats, err = statfile.Open(s.Statdir, programName); err != nil {
			return err
		}
		srv.stats.Log = log
	}
	return nil
}

// serve takes clients until ctx ends, and then waits for those that are being answered.
func (srv *server) serve(ctx context.Context, env *daemon.Env) error {
	if err := srv.prepare(env.Log); err != nil {
		return &config.Error{Err: err}
	}
	process := env.Process
	process.Expires = func() time.Time { return srv.tls.Load().clients[listenPOP3].Expires() }
	srv.meters.registry.Process(process)
	defer srv.stats.Close()
	srv.meters.registry.Store(srv.store.counts())
	defer srv.store.close()
	defer srv.limits.cluster.Close()
	srv.wg.Go(func() { srv.sweep(ctx) })
	srv.wg.Go(func() { srv.watch(ctx) })
	srv.watchLocks(env)
	env.Tell = srv.hub.Reloaded
	env.Ready()
	failed := make(chan error, 16)
	for name, group := range env.Listeners {
		for _, l := range group {
			srv.listen(ctx, name, l, failed)
		}
	}
	err := srv.mind(ctx, env, failed)
	_ = env.Listeners.CloseBound()
	if err != nil {
		return err
	}
	srv.drain()
	srv.ending.Wait()
	_ = env.Listeners.Close()
	srv.hub.Close()
	srv.wg.Wait()
	return nil
}

// listen serves one listener in a goroutine of its own.
func (srv *server) listen(ctx context.Context, name string, l net.Listener, failed chan<- error) {
	run := func() error { return srv.accept(name, l, func(conn net.Conn) { srv.take(ctx, name, conn) }) }
	switch name {
	case "notify":
		run = func() error { return srv.hub.Serve(l) }
	case listenStamps:
		run = func() error { return srv.accept(name, l, func(conn net.Conn) { srv.takeStamp(ctx, conn) }) }
	case "metrics":
		run = func() error { return srv.meters.serve(l) }
	}
	srv.wg.Go(func() {
		if err := run(); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			select {
			case failed <- fmt.Errorf("listener %s: %w", name, err):
			default:
			}
		}
	})
}

// accept has take serve each connection, which must not hold it up.
func (srv *server) accept(name string, l net.Listener, take func(net.Conn)) error {
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			take(conn)
		case errors.Is(err, net.ErrClosed):
			return nil
		case isTemporary(err):
			// Out of descriptors, most likely: wait until a session has ended.
			srv.log.Warn("accept", "listener", name, "error", err)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
		default:
			return err
		}
	}
}

// take starts a session for a client.
func (srv *server) take(ctx context.Context, name string, conn net.Conn) {
	if s := srv.begin(name, conn); s != nil {
		go srv.session(ctx, s)
	} else {
		turnAway(name, conn)
	}
}

// turnAway answers a client for whom there is no time any more. The next process takes those that come again.
func turnAway(listener string, conn net.Conn) {
	if listener != listenPOP3S {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte("-ERR [SYS/TEMP] going down, try again\r\n"))
	}
	_ = conn.Close()
}

func isTemporary(err error) bool {
	var sys *os.SyscallError
	return errors.As(err, &sys) // everything that accept(2) itself says
}

// begin makes a session for a client; nil if the server ends.
func (srv *server) begin(listener string, conn net.Conn) *session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.draining {
		return nil
	}
	s := newSession(srv, listener, conn)
	srv.sessions[s] = struct{}{}
	srv.ending.Add(1)
	return s
}

// session serves one client from its connection to its end.
func (srv *server) session(ctx context.Context, s *session) {
	defer func() {
		_ = s.raw.Close()
		srv.mu.Lock()
		delete(srv.sessions, s)
		srv.mu.Unlock()
		srv.ending.Done()
	}()
	s.run(ctx)
}

// drain wakes the sessions that wait for their clients; each sees that the server ends. No more begin.
func (srv *server) drain() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.draining = true
	for s := range srv.sessions {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

func (srv *server) sessionCount() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.sessions)
}

// mind does what comes up while the server runs, until ctx ends or a listener fails.
func (srv *server) mind(ctx context.Context, env *daemon.Env, failed <-chan error) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var trimmer daemon.Trimmer
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-env.Pulse:
		case <-env.Hangup:
			srv.reload(env)
		case <-tick.C:
			n := srv.sessionCount()
			env.Status(fmt.Sprintf("%d sessions", n))
			trimmer.Look(n)
		}
	}
}

// watchLocks has the watchdog ask for each lock that a session needs to begin. That of the stamps is held while the file
// system is waited for: sessions begin without it, unless they have a stamp to remove.
func (srv *server) watchLocks(env *daemon.Env) {
	locks := map[string]sync.Locker{"sessions": &srv.mu, "capabilities": &srv.capabilities.mu}
	if srv.store != nil && srv.conf.StampOnConnect == "remove" {
		locks["stamps"] = &srv.stamps
	}
	env.WatchLocks(locks)
	env.Watchdog("lock of connection limits", func() { srv.limits.count() })
	env.Watchdog("lock of failed logins", func() { srv.limits.logins.Shut(netip.Addr{}) })
	env.Watchdog("lock of events", func() { srv.hub.Stats() })
	env.Watchdog("lock of status files", srv.stats.Unlocked)
}
