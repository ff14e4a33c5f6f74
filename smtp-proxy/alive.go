package main

import (
	"net/netip"
	"sync"

	"postern/internal/daemon"
)

// watchLocks has the watchdog ask for each lock that a session needs. The lock of the spool directory is not
// among them: it is held while the file system is waited for, and sessions begin without it.
func (srv *server) watchLocks(env *daemon.Env) {
	env.WatchLocks(map[string]sync.Locker{"sessions": &srv.mu})
	env.WatchLocks(srv.gates.Locks())
	env.Watchdog("lock of connection limits", func() { srv.gates.Limits.Stats() })
	env.Watchdog("lock of refusals", func() { srv.gates.Limits.Refusals.Shut(netip.Addr{}) })
	env.Watchdog("lock of failed logins", func() { srv.logins.Shut(netip.Addr{}) })
	env.Watchdog("lock of events", func() { srv.hub.Stats() })
	env.Watchdog("lock of status files", srv.stats.Unlocked)
	env.Watchdog("lock of next hops", srv.ups.Unlocked)
	if srv.holds != nil {
		env.Watchdog("lock of held mail", srv.holds.Unlocked)
	}
	if srv.filter != nil {
		env.Watchdog("lock of multiplexor", srv.mx.Unlocked)
	}
}
