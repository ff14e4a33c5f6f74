package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/connlimit"
	"postern/internal/notify"
	"postern/internal/smtp"
	"postern/internal/statfile"
	"postern/internal/tlsconf"
	"postern/internal/workdir"
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
	log    *slog.Logger    // has limits: what strangers cause is no flood of lines
	debug  bool            // the log wants dialogs
	ctx    context.Context // ends when sessions have no more time
	conf   atomic.Pointer[live]
	gates  *gate.Gates
	logins connlimit.Logins // that failed
	ups    *upstream.Set
	holds  *upstream.Set // where messages go that the filter wants held; nil: nowhere
	filter *filter       // nil: nothing is filtered
	untend func()        // ends what keeps the spool tidy
	hub    *notify.Hub
	stats  *statfile.Dir // nil: no status files
	meters *meters
	memory *budget
	upName string // of the next hop, for status files
	route  upstream.Route

	logDropped func() uint64 // nil: not known

	drain
	mu       sync.Mutex
	sessions map[*session]struct{}
	running  sync.WaitGroup
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
	srv.meters.connection(name)
	if srv.draining.Load() {
		srv.turnAway(nc, name, &gate.Refusal{Gate: gateDrain, Reply: goingDown})
		return
	}
	if r := srv.gates.Limits.Enter(); r != nil {
		srv.turnAway(nc, name, r)
		return
	}
	s := srv.newSession(nc, name, addrPort(nc.RemoteAddr()), addrPort(nc.LocalAddr()))
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
	srv.meters.gate(why.Gate)
	srv.log.Warn("turned away", "listener", name, "client", nc.RemoteAddr().String(), "gate", why.Gate)
	if name != listenSMTPS {
		r := srv.conf.Load().named(why.Reply)
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(r.AppendTo(nil))
	}
	_ = nc.Close()
}

// Drain lets sessions end: idle ones at once, others after their message, if they go on with it. What is left when the
// context ends is cut off.
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
	srv.hub.Publish(notify.Message{Letter: 'F', Text: strconv.Itoa(free)})
	switch {
	case free == 0 && before > 0:
		srv.hub.Publish(notify.Message{Letter: 'Z'})
	case free > 0 && before == 0:
		srv.hub.Publish(notify.Message{Letter: 'Y'})
	}
}

// addrPort returns an address in its canonical form; that of a UNIX socket is not valid.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// addressText returns an address for events; that of a UNIX socket is "local".
func addressText(addr netip.Addr) string {
	if !addr.IsValid() {
		return "local"
	}
	return addr.String()
}

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', 3, 64)
}

// newSpool returns the directory for working directories.
func newSpool(s *settings) *workdir.Spool {
	return &workdir.Spool{
		Dir: s.Spool, Group: s.SpoolGroup, KeepFailed: bool(s.KeepFailed), MaxHeader: int64(s.MaxHeaderSize),
	}
}
