// Package listen opens the listeners of a program by name: those that the
// service manager passed (sd_listen_fds(3)), and for the other names those that
// the settings ask for.
//
// A UNIX socket has its final rights, or narrower ones, from the moment it
// exists, whatever the umask; the umask is not touched, since it belongs to the
// whole process.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/safedir"
	"postern/internal/sockspec"
)

// DefaultBacklog is how many connections may wait to be accepted, unless the
// request says otherwise. The kernel cuts it to net.core.somaxconn.
const DefaultBacklog = 4096

// DefaultMode are the rights of a UNIX socket, unless the request says otherwise.
const DefaultMode fs.FileMode = 0o700

// A Request names a listener and says where to bind it.
type Request struct {
	Name  string
	Specs []string // as sockspec.Parse reads them; none for a listener that is switched off

	Mode    fs.FileMode // of UNIX sockets; 0 for DefaultMode
	Owner   *Owner      // of UNIX sockets; nil for this process
	Group   string      // of UNIX sockets, a name or number; "" for that of Owner
	Backlog int         // 0 for DefaultBacklog

	// Public says that the listener is meant for other machines. For any other a
	// TCP address beyond loopback is worth a warning.
	Public bool

	wrong error // what is wrong with its Rights
}

// Owner is the user and group of a UNIX socket's file.
type Owner struct{ UID, GID int }

// Set holds open listeners by name.
type Set map[string][]net.Listener

// Open returns the listeners for the requests: those passed by the service
// manager replace all Specs of their name. It fails if one cannot be had, if a
// passed descriptor has a name that no request has, or is no listener; nothing
// stays open then. The variables LISTEN_* are removed from the environment, so
// call it once.
func Open(requests []Request, log *slog.Logger) (Set, error) {
	set, err := passed(requests, log)
	if err != nil {
		return nil, err
	}
	for _, r := range requests {
		if r.wrong != nil {
			return nil, errors.Join(r.wrong, set.Close())
		}
		if len(set[r.Name]) > 0 {
			log.Info("listener passed by the service manager, or by the process before", "name", r.Name, "count", len(set[r.Name]))
			continue
		}
		for _, text := range r.Specs {
			l, err := bind(r, text, log)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("listener %s: %w", r.Name, err), set.Close())
			}
			set[r.Name] = append(set[r.Name], l)
		}
	}
	return set, nil
}

// Close closes all listeners and removes the UNIX sockets that Open bound,
// unless another program has taken the path meanwhile.
func (s Set) Close() error { return s.close(func(net.Listener) bool { return true }) }

// CloseBound is Close for the listeners that Open bound. Those that were passed stay open: their clients would get
// no answer before the next process comes, since the service manager keeps them.
func (s Set) CloseBound() error { return s.close(func(l net.Listener) bool { return !isPassed(l) }) }

func (s Set) close(which func(net.Listener) bool) error {
	var errs []error
	for _, listeners := range s {
		for _, l := range listeners {
			if !which(l) {
				continue
			}
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Check returns an error if the specifications of the requests cannot be read, or if others may write to the directory
// of a UNIX socket. A directory or group that is not there yet gives an error that wraps fs.ErrNotExist, if there is no
// other.
func Check(requests []Request) error {
	var missing error
	for _, r := range requests {
		if r.wrong != nil {
			return r.wrong
		}
		for _, text := range r.Specs {
			spec, err := sockspec.Parse(text)
			if err == nil && spec.IsUnix() {
				err = safedir.Check(filepath.Dir(spec.Address), r.trusted()...)
			}
			if err == nil && spec.IsUnix() {
				_, err = r.gid()
			}
			if err == nil {
				continue
			}
			err = fmt.Errorf("listener %s: %w", r.Name, err)
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			missing = err
		}
	}
	return missing
}

// trusted returns who may own the directory of a UNIX socket, beside root and this process.
func (r Request) trusted() []safedir.Account {
	if r.Owner == nil {
		return nil
	}
	return []safedir.Account{{UID: r.Owner.UID, GID: r.Owner.GID}}
}

// CheckSpecs reports whether the specifications and rights can be read, and the former name no relative path: for a program that is started
// anywhere such a path is most likely none, but a host or a port.
func CheckSpecs(requests []Request) error {
	taken := make(map[string]string) // listener, by the place it is bound to
	for _, r := range requests {
		if r.wrong != nil {
			return r.wrong
		}
		for _, text := range r.Specs {
			spec, err := sockspec.Parse(text)
			if err == nil && spec.IsUnix() && !filepath.IsAbs(spec.Address) {
				err = fmt.Errorf("%q would be a UNIX socket in the directory that the program is started in; write its whole path, or inet_any:PORT for a port", text)
			}
			if other := taken[spec.String()]; err == nil && other != "" {
				err = fmt.Errorf("%s is a listener already, %s", text, other)
			}
			if err != nil {
				return fmt.Errorf("listener %s: %w", r.Name, err)
			}
			taken[spec.String()] = r.Name
		}
	}
	return nil
}

// CheckServes looks whether there is a listener for clients: one of the open set, or before that one that is to be
// bound. What listens for nobody does not serve.
func CheckServes(requests []Request, open Set) error {
	var public []string
	for _, r := range requests {
		if r.Public && (len(open[r.Name]) > 0 || open == nil && len(r.Specs) > 0) {
			return nil
		}
		if r.Public {
			public = append(public, r.Name)
		}
	}
	if public == nil {
		return nil
	}
	return fmt.Errorf("nothing to listen on: set %s, or have systemd pass such a socket", strings.Join(public, " or "))
}

func bind(r Request, text string, log *slog.Logger) (net.Listener, error) {
	spec, err := sockspec.Parse(text)
	if err != nil {
		return nil, err
	}
	if r.Backlog == 0 {
		r.Backlog = DefaultBacklog
	}
	if r.Mode == 0 {
		r.Mode = DefaultMode
	}
	var l net.Listener
	if spec.IsUnix() {
		l, err = bindUnix(r, spec.Address)
	} else {
		l, err = listenTCP(spec, r.Backlog)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", spec, reason(err))
	}
	if !spec.IsLoopback() && !r.Public {
		log.Warn("listener can be reached from other machines", "name", r.Name, "address", l.Addr().String())
	}
	log.Debug("listening", "name", r.Name, "address", l.Addr().String())
	return l, nil
}

func listenTCP(spec sockspec.Spec, backlog int) (net.Listener, error) {
	// Connections inherit what the listener has of this (tcp(7)), so that it is not set for each.
	config := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error { return control(c, keepAlive) }}
	l, err := config.Listen(context.Background(), spec.Network, spec.Address)
	if err != nil {
		return nil, err
	}
	return l, orClose(l, setBacklog(l, backlog))
}

// keepAlive has peers asked whether they are still there, when nothing has been heard of them for 15 seconds, as package
// net has it.
func keepAlive(fd int) error {
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9))
}

// setBacklog calls listen(2) a second time, which changes the backlog of a
// listening socket; package net has no way to give it.
func setBacklog(l net.Listener, backlog int) error {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return fmt.Errorf("set backlog of a %T", l)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return unix.Listen(fd, backlog) })
}

// control runs f on the descriptor behind c.
func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = f(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// orClose closes l if there was an error, which it gives back.
func orClose(l net.Listener, err error) error {
	if err != nil {
		l.Close()
	}
	return err
}

// reason takes off the net.OpError, whose text says the address once more.
func reason(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// names lists the names of the requests for an error text.
func names(requests []Request) string {
	var all []string
	for _, r := range requests {
		all = append(all, r.Name)
	}
	return strings.Join(all, ", ")
}
