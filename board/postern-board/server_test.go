package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"postern/internal/config"
	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

var discard = slog.New(slog.DiscardHandler)

// parse reads settings as from a command line.
func parse(args ...string) (*settings, error) {
	s := &settings{}
	parser := config.Parser{Program: "postern-board"}
	_, err := parser.Parse(s, append([]string{"--config", os.DevNull}, args...))
	return s, err
}

// prepared makes a server that watches, but listens nowhere.
func prepared(t testing.TB, args ...string) *server {
	t.Helper()
	s, err := parse(args...)
	if err != nil {
		t.Fatal(err)
	}
	srv := &server{conf: s}
	a, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	srv.access.Store(a)
	if err := srv.prepare(discard); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := testenv.Go(t, "the board, which was ended", func() error { srv.board.Run(ctx); return nil })
	t.Cleanup(func() {
		cancel()
		ran.Wait()
		srv.hub.Close()
	})
	return srv
}

// request is one of a browser.
type request struct{ method, path, host, remote, user, password, accept string }

func (srv *server) ask(r request) *httptest.ResponseRecorder {
	if r.method == "" {
		r.method = http.MethodGet
	}
	if r.host == "" {
		r.host = "localhost:9180"
	}
	req := httptest.NewRequest(r.method, r.path, nil)
	req.Host = r.host
	if r.remote != "" {
		req.RemoteAddr = r.remote
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.user != "" {
		req.SetBasicAuth(r.user, r.password)
	}
	w := httptest.NewRecorder()
	srv.guard(srv.routes()).ServeHTTP(w, req)
	return w
}

// said is a daemon that says what is published there.
func said(t testing.TB) (h *hub.Hub, spec string) {
	t.Helper()
	spec = filepath.Join(testenv.ShortDir(t), "n")
	l, err := net.Listen("unix", spec)
	if err != nil {
		t.Fatal(err)
	}
	h = hub.New(hub.Options{Letters: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", MaxListeners: 10, Log: discard})
	served := testenv.Go(t, "the hub, which is closed", func() error { return h.Serve(l) })
	t.Cleanup(func() {
		h.Close()
		served.Wait()
	})
	return h, spec
}

func publish(h *hub.Hub, lines ...string) {
	for _, line := range lines {
		h.Publish(notify.Message{Letter: line[0], Text: strings.TrimPrefix(line[1:], " ")})
	}
}

func TestPages(t *testing.T) {
	h, spec := said(t)
	srv := prepared(t, "--daemon", "gw1 smtp-proxy notify="+spec)
	testenv.Eventually(t, "the link", func() bool { return srv.board.Views()[0].Reachable })
	publish(h, "C s1 192.0.2.1", "G s1 192.0.2.1 load 421", "J s1 554", "L 1", "F 7")
	testenv.Eventually(t, "the last event", func() bool { return srv.board.Views()[0].Free == 7 })
	for _, tt := range []struct {
		path   string
		status int
		want   []string
	}{
		{"/", 200, []string{"<h1>Overview</h1>", `href="/daemon/gw1/smtp-proxy"`, "the load is too high", "in trouble", ">7</td>", `http-equiv="refresh"`}},
		{"/refusals", 200, []string{`href="/find?q=s1"`, `href="/find?q=192.0.2.1"`, "refused for good with 554"}},
		{"/daemon/gw1/smtp-proxy", 200, []string{"<h1>gw1 smtp-proxy</h1>", "connected from 192.0.2.1", "the load is too high"}},
		{"/find?q=s1", 200, []string{"3 lines.", "gate load refuses", "The load was too high.", "connected from 192.0.2.1", `value="s1"`}},
		{"/find?q=192.0.2.1", 200, []string{"3 lines.", "refused for good"}},
		{"/find?q=nobody", 200, []string{"No line about it"}},
		{"/find", 200, []string{"Write the id of a session"}},
		{"/find?q=" + strings.Repeat("x", 200), 200, []string{"Write the id of a session"}},
		{"/board.js", 200, []string{"EventSource"}},
		{"/board.css", 200, []string{"prefers-color-scheme"}},
		{"/icon.svg", 200, []string{"<svg"}},
		{"/daemon/gw1/multiplexor", 404, nil},
		{"/daemon/gw1", 404, nil},
		{"/web/base.html", 404, nil},
		{"/metrics", 404, nil},
		{"/../etc/passwd", 307, nil},
	} {
		w := srv.ask(request{path: tt.path})
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d", tt.path, w.Code, tt.status)
		}
		for _, want := range tt.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s: no %q in\n%s", tt.path, want, w.Body)
			}
		}
	}
}

func TestStreamOfNoDaemon(t *testing.T) {
	srv := prepared(t, "--daemon", "gw1 smtp-proxy notify=/nonexistent")
	w := srv.ask(request{path: "/daemon/gw2/smtp-proxy", accept: "text/event-stream"})
	if w.Code != http.StatusNotFound || w.Header().Get("Content-Type") == "text/event-stream" {
		t.Errorf("status %d, %v", w.Code, w.Header())
	}
}

// What daemons and strangers say is text in the pages, whatever it looks like.
func TestBRD_01_WhatLooksLikeHTML(t *testing.T) {
	h, spec := said(t)
	const evil = `<script>alert(1)</script>"'&` + "\u202e"
	srv := prepared(t, "--daemon", "gw1 multiplexor notify="+spec)
	testenv.Eventually(t, "the link", func() bool { return srv.board.Views()[0].Reachable })
	publish(h, "C "+evil+" "+evil, "W "+evil+" 192.0.2.1 PLAIN "+evil, "S 0 "+evil, "E "+evil, "R failed "+evil, "F 7")
	testenv.Eventually(t, "the last event", func() bool { return srv.board.Views()[0].Free == 7 })
	for _, path := range []string{"/", "/refusals", "/daemon/gw1/multiplexor", "/find?q=192.0.2.1", "/find?q=%3Cscript%3Ealert(1)%3C/script%3E%22"} {
		body := srv.ask(request{path: path}).Body.String()
		if !strings.Contains(body, "&lt;script&gt;") {
			t.Errorf("%s does not show it:\n%s", path, body)
		}
		if strings.Contains(body, "<script>alert") || strings.Contains(body, `="<`) || strings.Contains(body, "\u202e") {
			t.Errorf("%s: it is more than text:\n%s", path, body)
		}
	}
	if got := string(event([]byte("a\r\n\rdata: b\nevent: c\n"))); got != "data: a \ndata:  data: b\ndata: event: c\n\n" {
		t.Errorf("event of a stream: %q", got)
	}
}

// A page of a stranger gets nothing of ours, neither by a name of its own nor in a frame.
func TestBRD_02_OtherNamesAndFrames(t *testing.T) {
	srv := prepared(t, "--host", "Board.example.com")
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9180": 200, "127.0.0.1:9180": 200, "[::1]:9180": 200, "192.0.2.7": 200, "board.example.com:443": 200, "BOARD.example.com.": 200,
		"evil.example.com": 421, "evil.example.com:9180": 421, "localhost.evil.example.com": 421, "board.example.com.evil": 421, "127.0.0.1.evil.com": 421, " ": 421,
	} {
		w := srv.ask(request{path: "/", host: host})
		if w.Code != want {
			t.Errorf("%q: status %d, want %d", host, w.Code, want)
		}
		for name, value := range headers {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%q: %s: %q", host, name, got)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "X"} {
		if w := srv.ask(request{method: method, path: "/"}); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: status %d", method, w.Code)
		}
	}
	page := srv.ask(request{path: "/"}).Body.String()
	for _, inline := range []string{"<style", " style=", " onclick", "javascript:", "<script>"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %q, which its policy forbids", inline)
		}
	}
}

// passwordFile makes a file with a user of that password.
func passwordFile(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "# who may look\n%s:%s\n", user, hash), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Nobody looks without a password, and who guesses is turned away.
func TestBRD_03_Passwords(t *testing.T) {
	srv := prepared(t, "--password-file", passwordFile(t, "ann", "secret"))
	const far = "198.51.100.7:1234"
	for _, path := range []string{"/", "/board.js", "/find?q=x", "/nothing"} {
		for _, r := range []request{{path: path}, {path: path, user: "ann", password: "Secret"}, {path: path, user: "bob", password: "secret"}, {path: path, user: "ann", password: strings.Repeat("secret", 20)}} {
			r.remote = "127.0.0.1:1"
			if w := srv.ask(r); w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") == "" || w.Header().Get("Connection") != "close" || strings.Contains(w.Body.String(), "Overview") {
				t.Errorf("%+v: status %d", r, w.Code)
			}
		}
	}
	for range 3 {
		if w := srv.ask(request{path: "/", user: "ann", password: "secret", remote: far}); w.Code != http.StatusOK || w.Header().Get("Connection") != "" {
			t.Errorf("the right password: status %d, %v", w.Code, w.Header())
		}
	}
	if n := len(srv.access.Load().users.known); n != 1 {
		t.Errorf("%d passwords are known, want 1", n)
	}
	for range failedLogins {
		srv.ask(request{path: "/", user: "ann", password: "guess", remote: far})
	}
	if w := srv.ask(request{path: "/", user: "ann", password: "secret", remote: far}); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "600" {
		t.Errorf("after many guesses: status %d, %v", w.Code, w.Header())
	}
	for _, near := range []string{"127.0.0.1:1", "@"} { // others come from there as well
		if w := srv.ask(request{path: "/", user: "ann", password: "secret", remote: near}); w.Code != http.StatusOK {
			t.Errorf("from %s: status %d", near, w.Code)
		}
	}
	users := srv.access.Load().users
	for range guessing {
		users.waiting <- struct{}{}
	}
	if w := srv.ask(request{path: "/", user: "ann", password: "other"}); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "10" {
		t.Errorf("with many that wait: status %d, %v", w.Code, w.Header())
	}
	if w := srv.ask(request{path: "/", user: "ann", password: "secret"}); w.Code != http.StatusOK {
		t.Errorf("a known password, with many that wait: status %d", w.Code)
	}
}

func TestPasswordFiles(t *testing.T) {
	good := passwordFile(t, "ann", "secret")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string, mode os.FileMode) string {
		file := filepath.Join(t.TempDir(), "passwd")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for file, want := range map[string]string{
		good:                                    "",
		write(string(text)+string(text), 0o600): "twice",
		write("ann:secret\n", 0o600):            ":1: is not USER:BCRYPT",
		write("ann\n", 0o600):                   ":1: is not USER:BCRYPT",
		write("# nobody\n", 0o600):              "no user",
		write(string(text), 0o622):              "others may write",
		write("ann:$2y$31$"+strings.Repeat("a", 53)+"\n", 0o600): "cost 31 is more than",
		filepath.Join(t.TempDir(), "none"):                       "no such file",
	} {
		_, err := readPasswords(file)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// No address that others can reach is listened on without TLS and a way to know who looks.
func TestBRD_04_ListenersThatOthersReach(t *testing.T) {
	a := testenv.NewAuthority(t)
	cert, _ := a.Files(t.TempDir(), "localhost")
	passwd := passwordFile(t, "ann", "secret")
	tls := " --tls-cert " + cert + " --tls-client-ca " + a.File(t.TempDir())
	for args, want := range map[string]string{
		"--http inet:9180":                                  "",
		"--http inet6:9180":                                 "",
		"--http tcp:localhost:9180":                         "",
		"--http unix:/run/board.sock":                       "",
		"--http inet_any:9180":                              "nothing is encrypted",
		"--http tcp:*:9180":                                 "nothing is encrypted",
		"--http tcp:192.0.2.1:9180":                         "nothing is encrypted",
		"--https inet:9443":                                 "tls-cert",
		"--https inet_any:9443":                             "tls-cert",
		"--https inet:9443 --tls-cert " + cert:              "password-file",
		"--https inet_any:9443 --password-file " + passwd:   "tls-cert",
		"--https inet:9443 --tls-client-cert require" + tls: "",
		"--https inet:9443 --tls-client-cert ask" + tls:     "password-file",
		"--https inet:9443 --tls-client-cert require --tls-client-cert none_https" + tls: "password-file",
		"--https inet:9443 --tls-client-cert none --tls-client-cert require_https" + tls: "",
		"--https inet_any:9443 --tls-cert " + cert + " --password-file " + passwd:        "",
		"--daemon x":         "daemon",
		"--interval 10ms":    "interval",
		"--history 1":        "history",
		"--host https://a/b": "host",
	} {
		fields := strings.Fields(args)
		for i, f := range fields {
			if strings.HasSuffix(f, "_https") {
				fields[i] = strings.Replace(f, "_", " ", 1)
			}
		}
		_, err := parse(fields...)
		if strings.HasPrefix(args, "--daemon") {
			_, err = parse("--daemon", "x")
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	passed := func(name, address string) error {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s, err := parse()
		if err != nil {
			t.Fatal(err)
		}
		return s.passed(map[string][]net.Listener{name: {l}})
	}
	if err := passed(listenHTTP, "127.0.0.1:0"); err != nil {
		t.Error(err)
	}
	if passed(listenHTTP, "0.0.0.0:0") == nil || passed(listenHTTPS, "127.0.0.1:0") == nil {
		t.Error("a socket of the service manager that others can reach is taken without TLS and passwords")
	}
}

// pipeListener hands out one end of a pipe, which has no room for what is not read.
type pipeListener struct {
	conns chan net.Conn
	end   chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

// streaming opens pages of a server over pipes.
func streaming(t *testing.T, srv *server, headers ...string) (open func() net.Conn) {
	l := &pipeListener{make(chan net.Conn), make(chan struct{})}
	web := srv.web()
	served := testenv.Go(t, "the web server, which is closed", func() error { web.Serve(l); return nil })
	t.Cleanup(func() {
		close(l.end)
		web.Close()
		served.Wait()
	})
	return func() net.Conn {
		t.Helper()
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close() })
		testenv.Patient(ours)
		l.conns <- theirs
		if _, err := io.WriteString(ours, "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"+strings.Join(headers, "\r\n")+"\r\n"); err != nil {
			t.Fatal(err)
		}
		return ours
	}
}

// An open page is kept up to date, also while another browser does not read.
func TestOpenPages(t *testing.T) {
	h, spec := said(t)
	srv := prepared(t, "--daemon", "gw1 smtp-proxy notify="+spec)
	open := streaming(t, srv)
	r := bufio.NewReader(open())
	until := func(text string) {
		t.Helper()
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%v before %q", err, text)
			}
			if strings.Contains(line, text) {
				return
			}
		}
	}
	until("Content-Type: text/event-stream")
	until("data: <h1>Overview</h1>")
	open() // and read nothing
	testenv.Eventually(t, "two pages", func() bool { return srv.meters.viewers.Load() == 2 })
	publish(h, "L 1")
	until("the load is too high")
	publish(h, "L 0")
	until("nothing is wrong")
	close(srv.ending)
	for line := ""; line != "0\r\n"; { // the last chunk, of none
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("the end of a page: %v", err)
		}
	}
}

// A page that is open ends with the right to look at it.
func TestBRD_07_PagesOfWhoMayNoLongerLook(t *testing.T) {
	file := passwordFile(t, "ann", "secret")
	srv := prepared(t, "--password-file", file)
	r := bufio.NewReader(streaming(t, srv, "Authorization: Basic YW5uOnNlY3JldA==", "")())
	for line := ""; line != "data: <h1>Overview</h1>\n"; {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("the page: %v", err)
		}
	}
	if err := os.Rename(passwordFile(t, "bob", "secret"), file); err != nil {
		t.Fatal(err)
	}
	a, err := srv.conf.load()
	if err != nil {
		t.Fatal(err)
	}
	srv.access.Store(a)                // as a reload does
	for line := ""; line != "0\r\n"; { // the last chunk, of none
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatalf("the end of the page: %v", err)
		}
	}
}

// A browser that does not read is cut off.
func TestBRD_05_BrowsersThatDoNotRead(t *testing.T) {
	srv := prepared(t)
	srv.patience = time.Millisecond
	c := streaming(t, srv)()
	testenv.Eventually(t, "the end of the page", func() bool {
		_, err := c.Write([]byte("x"))
		return err != nil && srv.meters.viewers.Load() == 0
	})
}

func BenchmarkOverview(b *testing.B) {
	var args []string
	for i := range 100 {
		args = append(args, "--daemon", fmt.Sprintf("gw%d smtp-proxy notify=/nonexistent/%d", i, i))
	}
	srv := prepared(b, args...)
	v := &view{name: "overview", fill: srv.pages.overview}
	r := httptest.NewRequest("GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := srv.pages.main(v, r); err != nil {
			b.Fatal(err)
		}
	}
}
