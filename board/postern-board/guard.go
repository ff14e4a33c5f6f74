package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/internal/connlimit"
	"postern/internal/sockspec"
)

// headers go with every answer. What comes from the network is text in a page of ours; should it ever become more,
// the browser runs no script and loads nothing that is not ours.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cache-Control":                "no-store",
	"Vary":                         "Accept",
}

// guard answers those who may not look, and passes the others on.
func (srv *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		a := srv.access.Load()
		w.Header().Set("Connection", "close") // who may not look keeps no connection from others
		switch {
		case !a.knows(r.Host):
			srv.meters.requests.Inc("wrong-host")
			http.Error(w, "This server does not go by that name: see the setting host of postern-board(8).", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			srv.meters.requests.Inc("wrong-method")
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "There is nothing to change here.", http.StatusMethodNotAllowed)
		case a.users == nil || srv.authentic(a.users, w, r):
			srv.meters.requests.Inc("answered")
			w.Header().Del("Connection")
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), accessKey{}, a)))
		}
	})
}

// accessKey finds in the context of a request the *access that has let it in.
type accessKey struct{}

// knows says whether we go by that name. A name of somebody else's that leads here is a page of theirs that wants to
// read ours (DNS rebinding); an address cannot be such a name.
func (a *access) knows(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return name == "localhost" || a.hosts[name]
}

// authentic says whether the password is right; if it is not, that is answered.
func (srv *server) authentic(users *passwords, w http.ResponseWriter, r *http.Request) bool {
	addr := stranger(r.RemoteAddr)
	user, password, given := r.BasicAuth()
	right, err, later := false, error(nil), 10*time.Second
	switch {
	case srv.logins.Shut(addr):
		later = connlimit.LoginWindow
		err = errors.New("too many wrong passwords from your address: come again in ten minutes")
	case given:
		right, err = users.right(r.Context(), user, password)
	}
	switch {
	case err != nil:
		srv.meters.requests.Inc("busy")
		w.Header().Set("Retry-After", strconv.Itoa(int(later.Seconds())))
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case !right:
		if given {
			srv.meters.requests.Inc("wrong-password")
			srv.logins.Failed(addr, "")
			srv.log.Warn("wrong password", "client", r.RemoteAddr)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="Postern", charset="UTF-8"`)
		http.Error(w, "User and password, please.", http.StatusUnauthorized)
	}
	return right
}

// stranger gives the address of a client on another machine. On this one many may come from the same address, such
// as all that a reverse proxy passes on.
func stranger(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	addr := sockspec.Plain(at).Addr()
	if err != nil || addr.IsLoopback() {
		return netip.Addr{}
	}
	return addr
}
