package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func (d *multiplexor) watchSignals(signals <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case sig := <-signals:
			d.loop.Post(func() { d.signalled(sig) })
		}
	}
}

// signalled carries out a signal, on the loop.
func (d *multiplexor) signalled(sig os.Signal) {
	switch sig {
	case syscall.SIGINT:
		// A service manager that does not read could hold up the loop.
		d.work.must(d.manager.Reloading)
		d.reloading = true
		d.reread()
	case syscall.SIGHUP:
		if d.stats != nil {
			d.stats.reopen()
		}
	case syscall.SIGTERM, syscall.SIGQUIT:
		d.terminate(sig.(syscall.Signal))
	}
}

// terminate begins the end; a second time it is the end.
func (d *multiplexor) terminate(sig syscall.Signal) {
	if d.pool.Stopping() {
		d.pool.Abandon() // with an error, not with nothing
		d.status = 1
		d.loop.Stop()
		return
	}
	d.lines.event(levelInfo, "Received %s: Stopping workers and terminating", unix.SignalName(sig))
	d.work.must(d.manager.Stopping)
	d.giveUpNames(func(err error) { d.lines.Add(levelWarning, err.Error()) })
	for _, l := range d.listeners {
		l.Close()
	}
	d.pool.Stop(d.loop.Stop)
	if d.forks != nil {
		d.forks.Stop()
	}
}

// reread makes workers load the filter rules again.
func (d *multiplexor) reread() {
	if d.forks != nil {
		d.forks.Reread(d.pool.NotLoaded)
	}
	d.pool.Reread()
	if d.settings.changed != nil {
		d.work.must(d.nameChanged)
	}
}

// nameChanged says which settings of ours have changed: a reread is of the filter rules alone.
func (d *multiplexor) nameChanged() {
	switch names, err := d.settings.changed(); {
	case err != nil:
		d.lines.Add(levelError, "The settings are wrong now, and would not let this program start: "+err.Error())
	case len(names) > 0:
		d.lines.Add(levelWarning, "Settings have changed and are not in force before a restart: "+strings.Join(names, ", "))
	}
}

// rereadEnded is told when the outcome of a reread is known. A service manager that
// waits for it reads the outcome in the status text.
func (d *multiplexor) rereadEnded() {
	d.manager.Status(d.pool.StatusText())
	if d.reloading {
		d.reloading = false
		d.work.must(d.manager.Ready)
	}
}

// giveUpNames gives up everything under which this multiplexor is found: its files and
// the names of its sockets. The next one can start while this one still has requests
// to finish, and this one has nothing left to take from it. Listeners to events that
// are connected stay.
func (d *multiplexor) giveUpNames(complain func(error)) {
	if err := d.files.remove(); err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		complain(err)
	}
	for _, t := range d.sockets {
		if err := t.remove(); err != nil {
			complain(fmt.Errorf("remove a socket: %w", err))
		}
	}
	if err := d.others.Close(); err != nil {
		complain(fmt.Errorf("close the other sockets: %w", err))
	}
}
