package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/failures"
	"postern/internal/metrics"
	"postern/internal/mxproto"
	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/smtp"
	"postern/internal/sockspec"
	"postern/internal/statfile"
	"postern/internal/store"
	"postern/internal/tlsconf"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
	"postern/smtp-proxy/gate"
	"postern/smtp-proxy/upstream"
)

// Names of the listeners.
const (
	listenSMTP       = "smtp"
	listenSubmission = "submission"
	listenSMTPS      = "smtps"
	listenNotify     = "notify"
	listenMetrics    = "metrics"
)

// mailListeners are those for mail.
var mailListeners = []string{listenSMTP, listenSubmission, listenSMTPS}

// live is what can be exchanged while the server runs. A session keeps the one it began with.
type live struct {
	*settings
	tls map[string]*tlsconf.Listener // by the name of the listener; nil: no TLS with clients
}

func (c *live) check() smtp.AddressCheck { return smtp.AddressCheck(c.AddressCheck) }

// named puts our name into a reply that ends the connection, unless it is there: RFC 5321, 4.2.2.
func (c *live) named(r smtp.Reply) smtp.Reply {
	if r.Code == 421 && len(r.Lines) > 0 && !strings.HasPrefix(r.Lines[0], c.host+" ") {
		r.Lines = append([]string{c.host + " " + r.Lines[0]}, r.Lines[1:]...)
	}
	return r
}

// sizeLimit is the smaller of our limit and the server's, 0 being none.
func (c *live) sizeLimit(server int64) int64 {
	own := int64(c.MaxMessageSize)
	switch {
	case own == 0:
		return server
	case server == 0:
		return own
	}
	return min(own, server)
}

// server accepts connections and owns the sessions.
type server struct {
	log     *slog.Logger    // has limits: what strangers cause is no flood of lines
	debug   bool            // the log wants dialogs
	ctx     context.Context // ends when sessions have no more time
	conf    atomic.Pointer[live]
	gates   *gate.Gates
	shared  *store.Client    // nil: stamps, if any, are in a directory
	logins  failures.Counter // that failed
	ups     *upstream.Set
	holds   *upstream.Set   // where messages go that the filter wants held; nil: nowhere
	held    *heldGauge      // nil: it is no Maildir
	filter  *filter.Filter  // nil: nothing is filtered
	mx      *mxproto.Client // of the filter
	kept    *workdir.Kept   // what was filtered and is kept
	shadow  *shadow         // nil: there is no second filter
	untend  func()          // ends what goes on beside the filter: the spool is kept tidy, messages are kept and shown to the shadow
	hub     *hub.Hub
	stats   *statfile.Dir // nil: no status files
	metrics *counters
	memory  *budget
	upName  string // of the next hop, for status files

	process metrics.Process // what the metrics say of it

	drain
	mu       sync.Mutex
	sessions map[*session]struct{}
	running  sync.WaitGroup
}

// newServer makes a server that can ask its gates and filter; with open it can take sessions.
func newServer(ctx context.Context, s *settings, conf map[string]*tlsconf.Listener, log *slog.Logger) (*server, error) {
	srv := &server{log: log, debug: log.Enabled(ctx, slog.LevelDebug), ctx: ctx, sessions: make(map[*session]struct{}), metrics: newCounters(), memory: newBudget(int64(s.MaxMemory)), drain: drain{stopping: make(chan struct{}), drainGrace: 5 * time.Second}}
	srv.conf.Store(&live{settings: s, tls: conf})
	options, err := s.Access.Options("CDAGHJTWLFYZR", log)
	if err != nil {
		return nil, err
	}
	srv.hub = hub.New(options)
	srv.hub.Seed(notify.Message{Letter: notify.LetterGate, Text: "0"})
	srv.logins.Set(s.MaxLoginFailures, s.LoginDelay)
	if s.Multiplexor != "" {
		if srv.filter, srv.mx, err = newFilter(s); err != nil {
			return nil, err
		}
		srv.kept = newKept(s, log)
		if s.ShadowMultiplexor != "" {
			if srv.shadow, err = newShadow(s, srv.filter, log); err != nil {
				return nil, err
			}
		}
	}
	srv.gates, err = newGates(srv, s)
	return srv, err
}

// open prepares what a server writes to: next hops, status files.
func (srv *server) open(behind *tls.Config) error {
	s := srv.conf.Load().settings
	var err error
	if srv.ups, err = newUpstreams(s, behind, srv.log); err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	srv.metrics.nextHops(srv.ups.Stats())
	if s.Hold != "" {
		c := s.holdConfig()
		c.Log = srv.log
		if srv.holds, err = upstream.New(c); err != nil {
			return fmt.Errorf("hold: %w", err)
		}
		if path, ok := s.heldMaildir(); ok {
			srv.held = &heldGauge{path: path}
		}
	}
	srv.upName = serverName(s.Upstream[0])
	if srv.filter != nil {
		route := upstream.RouteOf(s.Upstream[0])
		srv.filter.Mailer, srv.filter.Host = route.Mailer, route.Host
	}
	if s.Statdir != "" {
		if srv.stats, err = statfile.Open(s.Statdir, programName); err != nil {
			return err
		}
		srv.stats.Log = srv.log
	}
	return nil
}

// start begins what goes on beside the sessions, until ctx ends.
func (srv *server) start(ctx context.Context) {
	s := srv.conf.Load()
	if s.MaxSessions > 0 {
		srv.hub.Seed(notify.Message{Letter: notify.LetterFree, Text: fmt.Sprint(s.MaxSessions)})
	}
	if srv.filter != nil {
		srv.tend(ctx)
	}
	if srv.filter == nil || s.MultiplexorNotify == "" || !bool(s.WorkerGate) {
		return
	}
	// It was looked at with the other settings.
	if spec, err := sockspec.Parse(s.MultiplexorNotify); err == nil {
		go srv.followWorkers(ctx, spec)
	}
}

// close gives back what the server holds, once its sessions have ended.
func (srv *server) close() {
	if srv.ups != nil {
		srv.ups.Close()
	}
	if srv.holds != nil {
		srv.holds.Close()
	}
	if srv.untend != nil {
		srv.untend()
	}
	if srv.filter != nil {
		srv.mx.Close()
		srv.shadow.close()
		_ = srv.filter.Spool.Close()
	}
	if srv.gates != nil {
		srv.gates.Limits.Close()
	}
	if srv.shared != nil {
		_ = srv.shared.Close()
	}
	_ = srv.stats.Close()
}

// use puts new settings into force for sessions that begin from now on.
func (srv *server) use(conf *live) {
	srv.conf.Store(conf)
	srv.logins.Set(conf.MaxLoginFailures, conf.LoginDelay)
	srv.gates.Set(conf.gates())
}

// Serve accepts connections on a listener of that name until it is closed. It may be called for several
// listeners at a time.
func (srv *server) Serve(l net.Listener, name string) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			srv.accept(nc, name)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Most likely there is no descriptor left. Sessions that end give some back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.log.Error("accept", "listener", name, "error", err)
			time.Sleep(pause) // also while draining, when passed listeners are still accepted from
		}
	}
}

// accept begins a session unless there are too many; then the refusal costs nothing but a write.
func (srv *server) accept(nc net.Conn, name string) {
	srv.metrics.connection(name)
	if srv.draining.Load() {
		srv.turnAway(nc, name, &gate.Refusal{Gate: gateDrain, Reply: goingDown})
		return
	}
	if r := srv.gates.Limits.Enter(); r != nil {
		srv.turnAway(nc, name, r)
		return
	}
	s := srv.newSession(nc, name, sockspec.AddrPort(nc.RemoteAddr()), sockspec.AddrPort(nc.LocalAddr()))
	if !srv.register(s) {
		srv.gates.Limits.Leave()
		srv.turnAway(nc, name, &gate.Refusal{Gate: gateDrain, Reply: goingDown})
		return
	}
	go func() {
		defer srv.running.Done()
		defer srv.leave(s)
		s.run()
	}()
}

// newSession makes the session of a connection from peer to local.
func (srv *server) newSession(nc net.Conn, listener string, peer, local netip.AddrPort) *session {
	s := &session{srv: srv, conf: srv.conf.Load(), started: time.Now(), conn: smtp.NewConn(nc)}
	s.wait.drain, s.wait.conn = &srv.drain, nc
	s.limits = newErrorLimits(s.conf)
	s.id = workdir.NewQueueID()
	s.relay = relay{owner: s, id: s.id, timeout: s.conf.UpstreamTimeout}
	s.client = client{listener: listener, peer: peer, addr: peer, local: local}
	if bool(s.conf.ClientLookup) {
		s.client.lookUp = srv.lookUpName
	}
	return s
}

// register makes a session one that a drain waits for; it fails when the drain has begun.
func (srv *server) register(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.draining.Load() {
		return false
	}
	srv.sessions[s] = struct{}{}
	srv.running.Add(1)
	return true
}

// refuse has no more sessions begin.
func (srv *server) refuse() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.draining.Store(true)
}

func (srv *server) leave(s *session) {
	srv.mu.Lock()
	delete(srv.sessions, s)
	srv.mu.Unlock()
	srv.gates.Limits.Leave()
}

// turnAway refuses a connection without making a session of it.
func (srv *server) turnAway(nc net.Conn, name string, why *gate.Refusal) {
	srv.metrics.gate(why.Gate)
	srv.publish(notify.LetterGated, "-", addressText(sockspec.AddrPort(nc.RemoteAddr()).Addr()), why.Gate, strconv.Itoa(why.Reply.Code))
	srv.log.Warn("turned away", "listener", name, "client", nc.RemoteAddr().String(), "gate", why.Gate)
	if name != listenSMTPS {
		r := srv.conf.Load().named(why.Reply)
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(r.AppendTo(nil))
	}
	_ = nc.Close()
}

// Drain lets sessions end: idle ones at once, others after their message, if they go on with it. What is left
// when the context ends is cut off.
func (srv *server) Drain(ctx context.Context) {
	srv.refuse()
	srv.stopOnce.Do(func() { close(srv.stopping) })
	srv.each(func(s *session) { s.wait.wake() })
	done := make(chan struct{})
	go func() {
		srv.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		srv.each(func(s *session) { _ = s.wait.conn.Close() })
		<-done
	}
}

func (srv *server) each(do func(*session)) {
	srv.mu.Lock()
	all := make([]*session, 0, len(srv.sessions))
	for s := range srv.sessions {
		all = append(all, s)
	}
	srv.mu.Unlock()
	for _, s := range all {
		do(s)
	}
}

// pause waits, but not into the end of the server.
func (srv *server) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-srv.stopping:
	case <-srv.ctx.Done():
	}
}

// publish tells listeners of an event.
func (srv *server) publish(letter byte, words ...string) {
	srv.hub.Publish(notify.Message{Letter: letter, Text: strings.Join(words, " ")})
}

// sessionCount returns how many sessions there are.
func (srv *server) sessionCount() int {
	n, _ := srv.gates.Limits.Stats()
	return n
}

// slots tells listeners how many more sessions there may be. The limits call it for each change.
func (srv *server) slots(free, before int) {
	srv.hub.Publish(notify.Message{Letter: notify.LetterFree, Text: strconv.Itoa(free)})
	switch {
	case free == 0 && before > 0:
		srv.hub.Publish(notify.Message{Letter: notify.LetterNone})
	case free > 0 && before == 0:
		srv.hub.Publish(notify.Message{Letter: notify.LetterSome})
	}
}
