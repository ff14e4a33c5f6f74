package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/metrics"
	"postern/internal/mxproto"
	"postern/internal/notify/listener"
	"postern/internal/privdrop"
	"postern/internal/rawio"
	"postern/internal/safedir"
	"postern/internal/sockspec"
	"postern/internal/stamp"
	"postern/internal/tlsconf"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
)

// program is what happens between the settings and the end.
type program struct {
	settings settings
	tls      map[string]*tlsconf.Listener
	behind   *tls.Config // with the next hop
	srv      *server     // once it serves
}

// program gives the parts that the daemon skeleton calls.
func (p *program) program() daemon.Program {
	commands := p.commands()
	asUser := slices.Collect(maps.Keys(commands))
	commands["log"] = p.digest
	return daemon.Program{
		Name: programName, Settings: &p.settings, Listeners: p.listeners, Open: p.open, Serve: p.serve,
		Description: "Guarded SMTP front door for any mail server.",
		Check:       p.check, Directories: p.directories, Execs: p.settings.execs,
		Files: func() []string {
			return slices.Concat(p.settings.TLS.Files(), p.settings.UpstreamFiles.Files(), p.settings.Store.Files())
		},
		Warnings: p.warnings,
		Reloads:  listener.Reloads,
		Sessions: func() int { return p.srv.sessionCount() },
		Commands: commands,
		AsUser:   asUser,
	}
}

// commands are what is done instead of serving, by name, and is about what the user who serves has, or may.
func (p *program) commands() map[string]func(stdout, stderr io.Writer) int {
	all := p.heldCommands()
	all["explain"] = p.explain
	all["replay"] = p.replay
	return all
}

// execs reports whether a next hop is a program.
func (s *settings) execs() bool {
	return slices.ContainsFunc(append([]string{s.Hold}, s.Upstream...), func(url string) bool { return strings.HasPrefix(url, "exec:") })
}

func (p *program) listeners() []listen.Request {
	s := &p.settings
	return s.Rights.On([]listen.Request{
		{Name: listenSMTP, Specs: s.SMTP, Public: true},
		{Name: listenSubmission, Specs: s.Submission, Public: true},
		{Name: listenSMTPS, Specs: s.SMTPS, Public: true},
		{Name: listenNotify, Specs: s.Notify},
		{Name: listenMetrics, Specs: s.Metrics},
	})
}

// check is what --check can see beyond the settings: that certificates can be read and users exist.
func (p *program) check() error {
	if _, err := loadTLS(&p.settings); err != nil {
		return err
	}
	if _, err := p.settings.UpstreamFiles.Load(); err != nil {
		return err
	}
	srv, err := newServer(context.Background(), &p.settings, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer srv.close()
	if srv.filter != nil {
		if _, err := os.Stat(p.settings.Spool); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

// directories are what the program writes to and believes.
func (p *program) directories() map[string]daemon.Directory {
	s := &p.settings
	all := map[string]daemon.Directory{}
	if s.Multiplexor != "" {
		all["spool"] = daemon.Directory{Write: s.Spool, Check: newSpool(s).Check}
		if s.keeps() {
			kept := newKept(s, nil)
			all["keep-dir"] = daemon.Directory{Write: kept.Dir, Check: kept.Check}
		}
	}
	if s.Statdir != "" {
		all["statdir"] = daemon.Directory{Write: s.Statdir, Check: func(also ...safedir.Account) error { return safedir.Check(s.Statdir, also...) }}
	}
	if s.ClientipDir != "" { // pop3-stamp writes there
		all["clientip-dir"] = daemon.Directory{Check: func(also ...safedir.Account) error {
			return stamp.CheckDir(s.ClientipDir, s.ClientipOwner, also...)
		}}
	}
	for setting, urls := range map[string][]string{"upstream": s.Upstream, "hold": {s.Hold}} {
		var paths []string
		for _, url := range urls {
			if path, ok := strings.CutPrefix(url, "maildir:"); ok {
				paths = append(paths, path)
			}
		}
		if paths != nil {
			all[setting] = daemon.Directory{Check: func(also ...safedir.Account) error { return s.checkMaildirs(paths, also...) }}
		}
	}
	return all
}

// checkMaildirs looks at each of several Maildirs. That one is not there yet is the least that is said of them.
func (s *settings) checkMaildirs(paths []string, also ...safedir.Account) error {
	var missing error
	for _, path := range paths {
		err := s.checkMaildir(path, also...)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = cmp.Or(missing, err)
	}
	return missing
}

// checkMaildir looks at a Maildir, or whether the user who serves can make it.
func (s *settings) checkMaildir(path string, also ...safedir.Account) error {
	err := safedir.Check(path, also...)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	for parent != filepath.Dir(parent) {
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parent = filepath.Dir(parent)
	}
	if denied := s.mayMake(parent); denied != nil {
		return fmt.Errorf("%s is not there, and cannot be made: %v", path, denied)
	}
	return err // it is made at the start
}

// mayMake returns an error if none of the users who may be the one who serves can make anything in a directory.
func (s *settings) mayMake(dir string) error {
	denied := errors.New("no such user")
	for _, user := range []string{s.User, daemon.UnitUser} {
		account, lookup := privdrop.Lookup(user)
		if lookup != nil {
			continue
		}
		denied = privdrop.As(account, func() error { return safedir.MayWrite(dir) })
		if denied == nil {
			return nil
		}
	}
	return denied
}

// open reads the keys, still as root.
func (p *program) open(env *daemon.Env) error {
	var err error
	if p.tls, err = loadTLS(&p.settings); err != nil {
		return err
	}
	if len(env.Listeners[listenSMTPS]) > 0 && p.tls == nil {
		return errors.New("a listener smtps needs tls-cert")
	}
	p.behind, err = p.settings.UpstreamFiles.Load()
	return err
}

// serve runs the server until ctx ends, and then until the sessions have ended.
func (p *program) serve(ctx context.Context, env *daemon.Env) error {
	hard, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv, err := p.prepare(hard, env)
	if err != nil {
		return &config.Error{Err: err}
	}
	defer srv.close()
	shortenSlice()
	p.srv = srv
	srv.process = env.Process
	srv.process.Expires = func() time.Time { return srv.conf.Load().tls[listenSMTP].Expires() }
	srv.start(ctx)
	srv.watchLocks(env)
	env.Tell = srv.hub.Reloaded
	env.Ready()
	accepting := srv.listen(env)
	p.mind(ctx, env, srv)
	srv.refuse()
	_ = env.Listeners.CloseBound()
	srv.Drain(hard)
	_ = env.Listeners.Close()
	srv.hub.Close()
	accepting.Wait()
	return nil
}

// listen serves the listeners; accepting is done when all have ended.
func (srv *server) listen(env *daemon.Env) (accepting *sync.WaitGroup) {
	accepting = &sync.WaitGroup{}
	for _, name := range mailListeners {
		for _, l := range env.Listeners[name] {
			accepting.Go(func() {
				if err := srv.Serve(l, name); err != nil {
					env.Log.Error("listener ended", "listener", name, "error", err)
				}
			})
		}
	}
	for _, l := range env.Listeners[listenNotify] {
		accepting.Go(func() {
			if err := srv.hub.Serve(l); err != nil {
				env.Log.Error("listener ended", "listener", listenNotify, "error", err)
			}
		})
	}
	var figures *metrics.Registry
	if len(env.Listeners[listenMetrics]) > 0 {
		figures = srv.registry()
	}
	for _, l := range env.Listeners[listenMetrics] {
		accepting.Go(func() {
			if err := figures.Serve(l); err != nil {
				env.Log.Error("listener ended", "listener", listenMetrics, "error", err)
			}
		})
	}
	return accepting
}

// prepare makes the server. An error is one of the settings: a place that is missing, or somebody else's.
func (p *program) prepare(ctx context.Context, env *daemon.Env) (*server, error) {
	srv, err := newServer(ctx, &p.settings, p.tls, env.Log)
	if err != nil {
		return nil, err
	}
	if err = srv.open(p.behind); err == nil && srv.filter != nil {
		err = srv.filter.Spool.Open()
	}
	if err != nil {
		srv.close()
	}
	return srv, err
}

// mind does what comes up while the server runs.
func (p *program) mind(ctx context.Context, env *daemon.Env, srv *server) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var trimmer daemon.Trimmer
	for {
		select {
		case <-ctx.Done():
			return
		case <-env.Pulse:
		case <-env.Hangup:
			p.reload(env, srv)
		case <-tick.C:
			srv.watch()
			n := srv.sessionCount()
			env.Status(fmt.Sprintf("%d sessions", n))
			trimmer.Look(n)
		}
	}
}

// watch looks at gates that change while nobody comes: listeners are to hear of it all the same.
func (srv *server) watch() { srv.gates.Load.Look() }

// reload reads settings, lists and certificates again. What cannot change while running stays as it is;
// if anything is wrong, everything stays.
func (p *program) reload(env *daemon.Env, srv *server) {
	later, err := p.tryReload(env, srv)
	env.Reloaded(err, later)
}

func (p *program) tryReload(env *daemon.Env, srv *server) (later []string, err error) {
	var fresh settings
	if later, err = env.Reread(&fresh, fixed); err != nil {
		return nil, err
	}
	conf, err := loadTLS(&fresh)
	if err == nil && conf == nil && len(env.Listeners[listenSMTPS]) > 0 {
		err = errors.New("a listener smtps needs tls-cert")
	}
	if err != nil {
		return nil, err
	}
	behind, err := fresh.UpstreamFiles.Load()
	if err != nil {
		return nil, err
	}
	srv.ups.UseTLS(behind)
	srv.use(&live{settings: &fresh, tls: conf})
	return later, nil
}

// fixed are the settings that are looked at once, at the start.
var fixed = []string{
	"smtp", "submission", "smtps", "hostname", "notify", "notify-users", "notify-limit", "metrics", "socket-mode", "socket-group",
	"user", "allow-root", "no-new-privs", "pidfile", "log", "log-level", "log-format", "syslog-facility", "syslog-tag", "drain-timeout",
	"upstream", "upstream-tls", "upstream-helo", "upstream-client-ip", "upstream-connections", "upstream-source", "upstream-timeout",
	"connect-timeout", "lmtp-recipients", "hold", "statdir", "clientip-dir", "clientip-maxage", "clientip-owner",
	"clientip-store", "clientip-store-auth", "clientip-store-ca", "clientip-store-cert", "clientip-store-key", "clientip-store-timeout", "clientip-ipv6-prefix", "cluster-limits",
	"multiplexor", "multiplexor-notify", "spool", "spool-group", "worker-gate", "relayok", "helook", "senderok", "recipok", "scan",
	"filter-timeout", "filter-max-delay", "on-failure", "scanned-by", "keep-dir", "keep-max", "keep-max-size", "shadow-multiplexor", "shadow-ignore", "max-header-size", "max-memory", "upstream-share",
}

// tend does what goes on beside the messages until close, while sessions drain as well: it keeps the spool tidy, keeps
// messages, and has the shadow filter look at some.
func (srv *server) tend(ctx context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	srv.untend = func() { cancel(); beside.Wait() }
	beside.Go(func() { srv.filter.Spool.Tend(ctx, srv.log) })
	beside.Go(func() { srv.kept.Run(ctx) })
	if srv.shadow != nil {
		srv.shadow.start(ctx, &beside)
	}
}

// followWorkers listens to the multiplexor.
func (srv *server) followWorkers(ctx context.Context, spec sockspec.Spec) {
	workers := srv.gates.Workers
	f := listener.Follower{Source: listener.Source{Name: "multiplexor", Dial: spec.Dial}, Interest: listener.Interest{Letters: "FYZ"}}
	for ctx.Err() == nil {
		err := f.Follow(ctx, func(e listener.Event) error {
			switch e.Kind {
			case listener.Happened, listener.State:
				workers.Event(e.Letter, e.Text)
			case listener.Up, listener.Down, listener.Lost:
				workers.Lost()
			}
			return nil
		})
		workers.Lost()
		if ctx.Err() == nil {
			srv.log.Warn("multiplexor's events are not understood", "error", err)
			srv.pause(30 * time.Second)
		}
	}
}

// newFilter makes the filter that the settings name, and the client of its multiplexor.
func newFilter(s *settings) (*filter.Filter, *mxproto.Client, error) {
	spec, err := sockspec.Parse(s.Multiplexor)
	if err != nil {
		return nil, nil, fmt.Errorf("multiplexor: %w", err)
	}
	mx := newMultiplexorClient(spec)
	f := &filter.Filter{
		Multiplexor: mx, Spool: newSpool(s),
		Stages: filter.Stages{
			Relayok: bool(s.Relayok), Helook: bool(s.Helook), Senderok: bool(s.Senderok), Recipok: bool(s.Recipok), Scan: bool(s.Scan),
		},
		Timeout: s.FilterTimeout, MaxDelay: s.FilterMaxDelay, OnFailure: s.onFailure, ScannedBy: s.ScannedBy,
	}
	if s.SpoolGroup != "" {
		f.Spool.Empty = f.EmptyDir
	}
	return f, mx, nil
}

// newMultiplexorClient returns a client of the multiplexor at spec. Its system calls are not announced to Go's scheduler: a
// filtered message, of which there are four requests, takes a tenth less of the proxy's CPU for it.
func newMultiplexorClient(spec sockspec.Spec) *mxproto.Client {
	return &mxproto.Client{Persistent: true, Dial: func(ctx context.Context) (net.Conn, error) {
		nc, err := spec.Dial(ctx)
		if direct, ok := rawio.New(nc); ok {
			nc = direct
		}
		return nc, err
	}}
}

// newSpool returns the directory for working directories.
func newSpool(s *settings) *workdir.Spool {
	return &workdir.Spool{
		Dir: s.Spool, Group: s.SpoolGroup, MaxHeader: int64(s.MaxHeaderSize),
	}
}
