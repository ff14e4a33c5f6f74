package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/internal/config"
	"postern/internal/daemon"
	"postern/internal/listen"
	"postern/internal/privdrop"
	"postern/internal/safedir"
	"postern/internal/sockspec"
)

// socket is a listener whose connections the loop accepts.
type socket struct {
	name   string
	fd     int
	remove func() error
}

// openSockets opens what clients and listeners connect to, as root, who can bind where the user cannot. Request, status
// and map sockets go to the loop; the others are left to the skeleton.
func (d *multiplexor) openSockets(env *daemon.Env) error {
	s := d.settings
	mode := os.FileMode(0o700)
	if s.Group {
		mode = 0o770
	}
	if s.likeOriginal() {
		for _, spec := range s.Requests {
			if isTCP(spec) {
				return errors.New("Argument to -s option must be a UNIX-domain socket, not a TCP socket.")
			}
		}
	}
	requests := s.listeners(mode)
	if d.account != nil {
		ownedBy(d.account, requests)
	}
	set, err := listen.Open(requests, d.log)
	if err != nil {
		return fmt.Errorf("Unable to create listening socket. (%w)", err)
	}
	env.Listeners = listen.Set{"notify": set["notify"], "metrics": set["metrics"]}
	for _, name := range []string{"requests", "status", "map"} {
		for _, l := range set[name] {
			fd, remove, err := listen.Take(l)
			if err != nil {
				return errors.Join(err, set.Close())
			}
			d.sockets = append(d.sockets, socket{name, fd, remove})
		}
	}
	return nil
}

// listeners are the sockets that may be set or passed.
func (s *settings) listeners(mode os.FileMode) []listen.Request {
	backlog := int(s.Backlog)
	return s.Rights.On([]listen.Request{
		{Name: "status", Specs: s.Status, Mode: 0o777, Backlog: backlog},
		{Name: "map", Specs: s.Map, Mode: mode, Backlog: backlog},
		{Name: "notify", Specs: s.Notify, Mode: mode},
		{Name: "metrics", Specs: s.Metrics, Mode: mode},
		// Last: who can connect here finds all the others.
		{Name: "requests", Specs: s.Requests, Mode: mode, Backlog: backlog},
	})
}

// isTCP reports whether a socket specification names a network address.
func isTCP(spec string) bool {
	return strings.HasPrefix(spec, "inet") || strings.HasPrefix(spec, "tcp:")
}

func ownedBy(account *privdrop.Account, requests []listen.Request) {
	for i := range requests {
		requests[i].Owner = &listen.Owner{UID: account.UID, GID: account.GID}
	}
}

// checkDirectories is what --check says of the directories of sockets and of the pid file. It gives the exit status.
func (s *settings) checkDirectories(name string) int {
	var also []safedir.Account
	requests := s.listeners(0)
	if account, err := privdrop.Lookup(s.User); err == nil && s.User != "" {
		also = append(also, safedir.Account{UID: account.UID, GID: account.GID})
		ownedBy(&account, requests)
	}
	var errs []error
	if s.Pidfile != "" {
		errs = append(errs, safedir.Check(filepath.Dir(s.Pidfile), also...))
	}
	_ = os.Chdir(s.Spool) // which relative paths of sockets are relative to; if it is not there, neither are they
	errs = append(errs, listen.Check(requests))
	status := 0
	for _, err := range errs {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(os.Stderr, "%s: warning: %v\n", name, err)
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s: error: %v\n", name, err)
			status = config.ExitSettings
		}
	}
	return status
}

// openEndpoints makes the loop accept connections.
func (d *multiplexor) openEndpoints() error {
	mayAsk, err := sockspec.Users("request-users", d.settings.RequestUsers)
	if err != nil {
		return err
	}
	mayLook, err := sockspec.Users("status-users", d.settings.StatusUsers)
	if err != nil {
		return err
	}
	lines, most := requestLines(d.server.maxLine), int(d.settings.MaxConnections)
	d.server.endpoints = map[string]*endpoint{
		"requests": {server: d.server, protocol: lines, limit: most, users: mayAsk},
		"status":   {server: d.server, protocol: lines, limit: maxRestricted, restricted: true, users: mayLook},
		"map":      {server: d.server, protocol: socketMap, limit: most, users: mayAsk},
	}
	d.leaveRoom()
	for i, t := range d.sockets {
		l, err := d.loop.Listen(t.fd, d.server.endpoints[t.name].admit, func(err error) { d.lines.Add(levelError, err.Error()) })
		if err != nil {
			return err
		}
		d.sockets[i].fd = -1 // the loop's now
		d.listeners = append(d.listeners, l)
	}
	return nil
}

// Descriptors that are not for clients: three pipes of a worker and the process itself,
// and those of the program, of listeners, and of a worker that is just started.
const (
	workerFDs = 4
	otherFDs  = 64
)

// leaveRoom lowers the limits of connections where the system allows fewer
// descriptors: clients that connect and do nothing must not keep workers from being
// started. As many clients as there are workers are always let in: where there is no
// room for that, those that are let in are at least served as far as it goes.
func (d *multiplexor) leaveRoom() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	perWorker := workerFDs
	if d.settings.Pipe {
		perWorker++
	}
	workers := int(d.settings.Max)
	room := int(min(limit.Cur, math.MaxInt32)) - perWorker*workers - otherFDs
	if room < workers {
		d.lines.Add(levelWarning, fmt.Sprintf("%d workers and their clients may need more than the %d descriptors that there may be", workers, limit.Cur))
	}
	used, share := map[string]bool{}, 0
	for _, t := range d.sockets {
		used[t.name] = true
	}
	parts := map[string]int{"requests": 4, "status": 1, "map": 2}
	for name := range used {
		share += parts[name]
	}
	for _, name := range []string{"requests", "status", "map"} {
		e := d.server.endpoints[name]
		if most := max(room*parts[name]/max(share, 1), workers); used[name] && e.limit > most {
			e.limit = most
			d.lines.Add(levelInfo, fmt.Sprintf("%d connections at most on sockets for %s: there may be %d descriptors", most, name, limit.Cur))
		}
	}
}
