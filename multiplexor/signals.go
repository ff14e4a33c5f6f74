package main

import (
	"os"
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
		d.errands.must(d.manager.Reloading)
		d.reread()
		d.errands.must(d.manager.Ready)
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
	if d.pool.stopping {
		d.pool.abandon() // with an error, not with nothing
		d.status = 1
		d.loop.Stop()
		return
	}
	d.pool.event(levelInfo, "Received %s: Stopping workers and terminating", unix.SignalName(sig))
	d.errands.must(d.manager.Stopping)
	d.files.remove()
	for _, l := range d.doors {
		l.Close()
	}
	for _, t := range d.sockets {
		if err := t.remove(); err != nil {
			d.journal.add(levelWarning, "remove a socket: "+err.Error())
		}
	}
	d.pool.stop(d.loop.Stop)
	if d.forks != nil {
		d.forks.stop()
	}
}
