package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"postern/internal/daemon"
	"postern/internal/testenv"
)

// whole is the program as it is started, in this process, with a service manager and a watchdog that the test drives.
type whole struct {
	*program
	t       *testing.T
	manager *testenv.Manager
	log     *testenv.Buffer
	signals chan os.Signal
}

// startWhole starts the program with a listener for mail and waits until it is ready and has been asked once.
func startWhole(t *testing.T, args ...string) *whole {
	t.Helper()
	w := &whole{t: t, manager: testenv.StartManager(t), log: &testenv.Buffer{}, signals: make(chan os.Signal)}
	t.Setenv("NOTIFY_SOCKET", w.manager.Path)
	load := filepath.Join(t.TempDir(), "loadavg") // this machine may be busy
	writeFile(t, load, "0 0 0 1/1 1\n")
	args = append([]string{"--config", os.DevNull, "--user", "root", "--allow-root", "--log", "stderr", "--loadavg-file", load}, args...)
	w.program = new(program)
	status := make(chan int, 1)
	go func() {
		status <- daemon.Main(w.program.program(), args, daemon.Std{Stdout: w.log, Stderr: w.log, Signals: w.signals, Ticks: w.manager.Ticks})
	}()
	t.Cleanup(func() {
		w.send(syscall.SIGTERM)
		if s := testenv.Receive(t, "the end of the program", status); s != 0 || t.Failed() {
			t.Errorf("status %d; log:\n%s", s, w.log.String())
		}
	})
	w.manager.AwaitPat()
	return w
}

func (w *whole) send(sig os.Signal) {
	w.t.Helper()
	testenv.Go(w.t, "somebody who takes a signal", func() error { w.signals <- sig; return nil }).Wait()
}

// TestWatchdogOfEachLock: while any lock that a session needs is held, the service manager hears nothing.
func TestWatchdogOfEachLock(t *testing.T) {
	b := testenv.StartBackend(t)
	dir := testenv.ShortDir(t)
	for _, name := range []string{"stat", "stamps"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	mx := startMultiplexor(t, func([]string) string { return "ok\n" })
	w := startWhole(t, behind(b), "--smtp", filepath.Join(dir, "smtp"), "--statdir", filepath.Join(dir, "stat"),
		"--clientip-dir", filepath.Join(dir, "stamps"), "--multiplexor", mx.spec, "--spool", mx.spool,
		"--hold", "smtp://"+b.Addr)
	locks := testenv.Locks("srv", w.srv)
	if len(locks) < 10 {
		t.Fatalf("locks found: %v", locks)
	}
	for way, lock := range locks {
		switch way {
		case "srv.filter.Spool.mu", "srv.gates.stamps.store.mu", "srv.gates.stamps.store.kept": // held while the file system is waited for
			lock.Lock()
			w.manager.Lives()
			lock.Unlock()
		default:
			lock.Lock()
			w.manager.Hangs("", w.log.String, lock.Unlock) // the main loop itself may have run into it
		}
	}
}

// TestWatchdogOfLoops: an accept loop that hangs while it hands a client over, and a main loop that does not come back,
// are told from a program that lives.
func TestWatchdogOfLoops(t *testing.T) {
	b := testenv.StartBackend(t)
	dir := testenv.ShortDir(t)
	socket := filepath.Join(dir, "smtp")
	w := startWhole(t, behind(b), "--smtp", socket)
	srv := w.srv
	limits := testenv.Locks("srv", srv)["srv.gates.Limits.sessions.mu"] // before there are sessions that change what it looks at

	srv.mu.Lock()
	c := testenv.Dial(t, "unix", socket)
	testenv.Eventually(t, "the client's slot", func() bool { return srv.sessionCount() == 1 })
	w.manager.Hangs("accept loop of smtp", w.log.String, srv.mu.Unlock)
	must(t, c.Close())

	before := srv.conf.Load()
	limits.Lock()
	w.send(syscall.SIGHUP)
	testenv.Eventually(t, "a reload that has begun", func() bool { return srv.conf.Load() != before })
	w.manager.Hangs("main loop", w.log.String, limits.Unlock)
}
