package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/daemon"
	"postern/internal/testenv"
)

// whole is the program as it is started, in this process, with a service manager and a watchdog that the test drives.
type whole struct {
	*server
	t       *testing.T
	manager *testenv.Manager
	log     *testenv.Buffer
	signals chan os.Signal
}

// startWhole starts the program with a listener for clients and waits until it is ready and has been asked once.
func startWhole(t *testing.T, args ...string) *whole {
	t.Helper()
	w := &whole{
		server: &server{conf: &settings{}}, t: t, manager: testenv.StartManager(t), log: &testenv.Buffer{}, signals: make(chan os.Signal),
	}
	t.Setenv("NOTIFY_SOCKET", w.manager.Path)
	args = append([]string{
		"--config", os.DevNull, "--user", "root", "--allow-root", "--log", "stderr", "--pop3", filepath.Join(testenv.ShortDir(t), "pop3"),
	}, args...)
	status := make(chan int, 1)
	go func() {
		status <- daemon.Main(w.program(), args, daemon.Std{Stdout: w.log, Stderr: w.log, Signals: w.signals, Ticks: w.manager.Ticks})
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

// TestWatchdogOfEachLock: while any lock that a session needs to begin is held, the service manager hears nothing. That of
// the stamps is held as long as the file system takes, and is needed only where stamps are removed first.
func TestWatchdogOfEachLock(t *testing.T) {
	for _, onConnect := range []string{"keep", "remove"} {
		t.Run(onConnect, func(t *testing.T) {
			w := startWhole(t, "--upstream", backendAt(t, mailbox("")), "--statdir", testenv.ShortDir(t), "--clientip-dir", testenv.ShortDir(t),
				"--stamp-on-connect", onConnect)
			locks := testenv.Locks("srv", w.server)
			if len(locks) < 6 {
				t.Fatalf("locks found: %v", locks)
			}
			for way, lock := range locks {
				lock.Lock()
				if strings.HasPrefix(way, "srv.store.") || way == "srv.stamps" && onConnect == "keep" {
					w.manager.Lives()
					lock.Unlock()
					continue
				}
				w.manager.Hangs("", w.log.String, lock.Unlock)
			}
		})
	}
}

// TestWatchdogOfMainLoop: a main loop that does not come back is told from a program that lives.
func TestWatchdogOfMainLoop(t *testing.T) {
	w := startWhole(t, "--upstream", backendAt(t, mailbox("")))
	before := w.tls.Load()
	events := testenv.Locks("hub", w.hub)["hub.mu"]
	events.Lock()
	w.send(syscall.SIGHUP)
	testenv.Eventually(t, "a reload that has begun", func() bool { return w.tls.Load() != before })
	w.manager.Hangs("main loop", w.log.String, events.Unlock)
}
