package scanner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// serve has handle answer each connection to a socket of the given network, and returns its address.
func serve(t *testing.T, network string, handle func(c net.Conn)) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(testenv.ShortDir(t), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if testenv.Patient(c) == nil {
					handle(c)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string { return filepath.Join(testenv.ShortDir(t), "none") }

func message() *Message {
	return &Message{Content: []byte("Subject: x\n\nhello\n"), QueueID: "AB12", ClientIP: "192.0.2.7", ClientName: "mail.example.org",
		Helo: "helo\x01\n.example", Sender: "a@example.org", Recipients: []string{"b@example.net", "c@example.net"}, User: "bob"}
}

// readStream reads what a client of clamd sends, up to the end of the content.
func readStream(r *bufio.Reader) (content []byte, err error) {
	verb, err := r.ReadString(0)
	if err != nil || verb != "zINSTREAM\x00" {
		return nil, fmt.Errorf("verb %q, %w", verb, err)
	}
	for {
		var n uint32
		if err := binary.Read(r, binary.BigEndian, &n); err != nil {
			return nil, err
		}
		if n == 0 {
			return content, nil
		}
		piece := make([]byte, n)
		if _, err := io.ReadFull(r, piece); err != nil {
			return nil, err
		}
		content = append(content, piece...)
	}
}

func TestClamd(t *testing.T) {
	large := &Message{Content: bytes.Repeat([]byte("0123456789abcdef"), 1<<16)}
	for _, tt := range []struct {
		name, answer string
		want         Result
		wrong        string
	}{
		{"clean", "stream: OK\x00", Result{}, ""},
		{"virus", "stream: Eicar-Test.UNOFFICIAL FOUND\x00", Result{Verdict: Virus, Name: "Eicar-Test.UNOFFICIAL"}, ""},
		{"without the end", "stream: OK", Result{}, ""},
		{"too large", "INSTREAM size limit exceeded. ERROR\x00", Result{}, "size limit exceeded"},
		{"hostile name", "stream: a\x1b[2J OK\x00", Result{}, "a?[2J"},
		{"nothing", "", Result{}, "EOF"},
		{"without end", strings.Repeat("x", 2<<20), Result{}, "xxxx"},
	} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(tt.name+", "+network, func(t *testing.T) {
				got := make(chan []byte, 1)
				address := serve(t, network, func(c net.Conn) {
					content, err := readStream(bufio.NewReader(c))
					if err != nil {
						content = []byte(err.Error())
					}
					got <- content
					_, _ = io.WriteString(c, tt.answer)
				})
				r, err := NewClamd([]string{address}).Scan(t.Context(), large)
				if r.String() != tt.want.String() || (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("%v, %v; want %v, %s", r, err, tt.want, tt.wrong)
				}
				if content := testenv.Receive(t, "the content", got); !bytes.HasPrefix(content, []byte("Return-Path: <>\n")) || !bytes.HasSuffix(content, large.Content) {
					t.Errorf("%d bytes arrived: %.100q", len(content), content)
				}
			})
		}
	}
}

// TestServers has several servers: one that is away is asked last for a while, and each gets its share of the time.
func TestServers(t *testing.T) {
	asked := make(chan string, 100)
	good := serve(t, "unix", func(c net.Conn) {
		asked <- "good"
		if _, err := readStream(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "stream: OK\x00")
		}
	})
	bad := serve(t, "tcp", func(c net.Conn) { asked <- "bad" })
	c := NewClamd([]string{nobody(t), bad, good})
	now := time.Unix(1e9, 0)
	c.now = func() time.Time { return now }
	ask := func(want ...string) {
		t.Helper()
		if _, err := c.Scan(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range want {
			got = append(got, testenv.Receive(t, "a connection", asked))
		}
		if !slices.Equal(got, want) || len(asked) > 0 {
			t.Errorf("asked %q and %d more, want %q", got, len(asked), want)
		}
	}
	ask("bad", "good")
	ask("good")
	now = now.Add(time.Minute)
	ask("bad", "good")

	_, err := NewClamd([]string{nobody(t), bad}).Scan(t.Context(), message())
	if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v, want one that names both servers", err)
	}
}

// TestSilentServers has servers that never answer: they are given up at the deadline.
func TestSilentServers(t *testing.T) {
	silent := serve(t, "tcp", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	deaf := testenv.Blackhole(t)
	sleeper, err := NewCommand("/bin/sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Scanner{
		"clamd": NewClamd([]string{silent, silent}), "spamd": NewSpamd([]string{silent}, false), "rspamd": NewRspamd([]string{silent}),
		"clamd away": NewClamd([]string{deaf}), "command": sleeper,
	} {
		ctx, cancel := testenv.Soon(t.Context())
		_, err := s.Scan(ctx, message())
		cancel()
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSpamd(t *testing.T) {
	answer := func(spam, body string) string {
		return fmt.Sprintf("SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %s\r\n\r\n%s", len(body), spam, body)
	}
	const header = "X-Spam-Flag: YES\nSubject: x\nX-Spam-Status: Yes, score=7.0 required=5.0 tests=A,\n\tB autolearn=no\nX-spam-flag: 2\nTo: x\n"
	for _, tt := range []struct {
		name, answer, want string
		headers            bool
	}{
		{"spam", answer("True ; 15.0 / 5.0", "A,B_C"), "spam score=15.0/5.0 symbols=A,B_C", false},
		{"clean", answer("False ; -0.1 / 5.0", ""), "clean score=-0.1/5.0", false},
		{"none", answer("False ; 0 / 5", "none\n"), "clean score=0.0/5.0", false},
		{"headers", answer("True ; 7 / 5", header), "spam score=7.0/5.0 symbols=A,B", true},
		{"without score", answer("True", "A"), "error without a score", false},
		{"without verdict", answer("Maybe ; 1 / 5", "A"), "error without a verdict", false},
		{"error", "SPAMD/1.0 76 Bad header line: x\r\n\r\n", "error Bad header", false},
		{"length of a lie", "SPAMD/1.1 0 EX_OK\r\nContent-length: 99999\r\nSpam: True ; 1 / 5\r\n\r\nx", "error", false},
		{"huge length", "SPAMD/1.1 0 EX_OK\r\nContent-length: 9999999999\r\nSpam: True ; 1 / 5\r\n\r\nx", "error length", false},
		{"nothing", "", "error", false},
		{"endless", strings.Repeat("x", 2<<20), "error", false},
		{"many symbols", answer("True ; 1 / 5", strings.Repeat("A,", 100000)), "spam score=1.0/5.0 symbols=A,A,A", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan string, 1)
			address := serve(t, "unix", func(c net.Conn) {
				r := bufio.NewReader(c)
				line, _ := r.ReadString('\n')
				length, _ := r.ReadString('\n')
				_, _ = r.ReadString('\n')
				n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(length, "Content-length:")))
				content := make([]byte, n)
				_, _ = io.ReadFull(r, content)
				got <- line + string(content)
				_, _ = io.WriteString(c, tt.answer)
			})
			r, err := NewSpamd([]string{address}, tt.headers).Scan(t.Context(), message())
			text := r.String()
			if err != nil {
				text = "error " + err.Error()
			}
			if wrong, ok := strings.CutPrefix(tt.want, "error"); ok && (err == nil || !strings.Contains(text, strings.TrimSpace(wrong))) || !ok && !strings.HasPrefix(text, tt.want) {
				t.Errorf("%s; want %s", text, tt.want)
			}
			if len(text) > 3000 {
				t.Errorf("%d bytes", len(text))
			}
			sent := testenv.Receive(t, "the message", got)
			want := " SPAMC/1.5\r\nReturn-Path: <a@example.org>\nReceived: from helo??.example (mail.example.org [192.0.2.7])\n\tby localhost (Postern) with ESMTPA id AB12\nSubject: x\n\nhello\n"
			if !strings.HasSuffix(sent, want) {
				t.Errorf("sent %q", sent)
			}
			if tt.headers {
				want := []Field{{"X-Spam-Flag", "YES", -1}, {"X-Spam-Status", "Yes, score=7.0 required=5.0 tests=A,\n\tB autolearn=no", -1}, {"X-spam-flag", "2", -1}}
				if !slices.Equal(r.Add, want) || len(r.Remove) != 5 {
					t.Errorf("adds %+v, removes %+v", r.Add, r.Remove)
				}
			}
		})
	}
}

func TestRspamd(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want string
		status             int
	}{
		{"clean", `{"action":"no action","score":0.1,"required_score":15,"symbols":{"B":{"score":1},"A":{}}}`, "clean (no action) score=0.1/15.0 symbols=A,B", 200},
		{"mark", `{"action":"add header","score":7,"required_score":15}`, "spam (add header) score=7.0/15.0", 200},
		{"subject", `{"action":"rewrite subject","score":7,"required_score":15,"subject":"SPAM x"}`, "spam (rewrite subject) score=7.0/15.0", 200},
		{"refuse", `{"action":"reject","score":20,"required_score":15,"messages":{"smtp_message":"go away"}}`, "refuse (reject) score=20.0/15.0", 200},
		{"greylist", `{"action":"greylist","score":5,"required_score":15}`, "defer (greylist) score=5.0/15.0", 200},
		{"soft reject", `{"action":"soft reject","score":5,"required_score":15}`, "defer (soft reject) score=5.0/15.0", 200},
		{"discard", `{"action":"discard","score":5,"required_score":15}`, "discard (discard) score=5.0/15.0", 200},
		{"unknown action", `{"action":"dance","score":5}`, "error dance", 200},
		{"no score", `{"action":"no action"}`, "error", 200},
		{"no JSON", `<html>`, "error JSON", 200},
		{"wrong types", `{"action":"no action","score":"many"}`, "error JSON", 200},
		{"refused", `{"error":"Invalid"}`, "error 403", 403},
		{"elsewhere", ``, "error 302", 302},
		{"endless", strings.Repeat(" ", 2<<20), "error too much", 200},
		{"deep", strings.Repeat("[", 1<<19), "error JSON", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan *http.Request, 1)
			address := rspamdServer(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				got <- r
				w.Header().Set("Location", "http://192.0.2.1/")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			})
			r, err := NewRspamd([]string{address}).Scan(t.Context(), message())
			text := r.String()
			if err != nil {
				text = "error " + err.Error()
			}
			if wrong, ok := strings.CutPrefix(tt.want, "error"); ok && (err == nil || !strings.Contains(text, strings.TrimSpace(wrong))) || !ok && text != tt.want {
				t.Errorf("%s; want %s", text, tt.want)
			}
			if tt.name == "subject" && r.Subject != "SPAM x" || tt.name == "refuse" && r.Reply != "go away" {
				t.Errorf("subject %q, reply %q", r.Subject, r.Reply)
			}
			request := testenv.Receive(t, "the request", got)
			for name, want := range map[string][]string{"Queue-Id": {"AB12"}, "Ip": {"192.0.2.7"}, "Hostname": {"mail.example.org"},
				"Helo": {"helo??.example"}, "From": {"a@example.org"}, "Rcpt": {"b@example.net", "c@example.net"}, "User": {"bob"}} {
				if !slices.Equal(request.Header[name], want) {
					t.Errorf("%s: %q, want %q", name, request.Header[name], want)
				}
			}
			if request.URL.Path != "/checkv2" || request.ContentLength != int64(len(message().Content)) {
				t.Errorf("asked for %s with %d bytes", request.URL, request.ContentLength)
			}
		})
	}
}

func rspamdServer(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handle}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestRspamdHeader has changes of the header in all their forms, and such that cannot be made.
func TestRspamdHeader(t *testing.T) {
	r, err := rspamdResult([]byte(`{"action":"no action","score":1,"milter":{
		"add_headers":{"A":"1","B":{"value":"2","order":0},"C":["3",{"value":"4","order":1},["5"],6],"D":null,"E F":"7","G":{"value":"8\nX: y","order":-2}},
		"remove_headers":{"H":0,"I":2,"J":-1,"":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	r.keep()
	if want := []Field{{"A", "1", -1}, {"C", "3", -1}, {"G", "8\nX: y", -1}, {"B", "2", 0}, {"C", "4", 1}}; !slices.Equal(r.Add, want) {
		t.Errorf("adds %+v, want %+v", r.Add, want)
	}
	if want := []Field{{"H", "", 0}, {"J", "", 0}, {"I", "", 2}}; !slices.Equal(r.Remove, want) {
		t.Errorf("removes %+v, want %+v", r.Remove, want)
	}
	many := Result{}
	for range 1000 {
		many.Add = append(many.Add, Field{"A", strings.Repeat("x", 1000), -1})
	}
	if many.keep(); len(many.Add) > maxFields || len(many.Add)*3000 > maxAllBytes {
		t.Errorf("%d fields are kept", len(many.Add))
	}
}

func TestCommand(t *testing.T) {
	dir := testenv.ShortDir(t)
	for _, tt := range []struct{ name, script, want string }{
		{"clean", "exit 0", "clean"},
		{"virus", "echo Test.Virus; echo more; exit 1", "virus (Test.Virus)"},
		{"spam", "exit 2", "spam"},
		{"later", "echo busy; exit 75", "defer (busy)"},
		{"failed", "echo oops; exit 3", `error ended with exit status 3: "oops"`},
		{"killed", "kill -9 $$", `error ended with signal: killed: ""`},
		{"reads nothing", "exec <&-; exit 0", "clean"},
		{"arguments and message", `[ "$1 $2" = "a b" ] && grep -q hello && exit 1; exit 3`, "virus"},
		{"who", `[ "$CLIENT_ADDRESS $SENDER $LOGIN $QUEUE_ID" = "192.0.2.7 a@example.org bob AB12" ] && [ "$RECIPIENTS" = "b@example.net
c@example.net" ] && exit 1; exit 3`, "virus"},
		{"endless", "exec yes", "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "scan")
			if err := os.WriteFile(path, []byte(tt.script+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := NewCommand("/bin/sh " + path + " a b")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if tt.name == "endless" {
				ctx, cancel = testenv.Soon(ctx)
			}
			defer cancel()
			m := message()
			m.Content = append(m.Content, make([]byte, 1<<20)...)
			r, err := c.Scan(ctx, m)
			text := r.String()
			if err != nil {
				text = "error " + err.Error()
			}
			if text != tt.want && !(tt.want == "error" && err != nil) {
				t.Errorf("%s; want %s", text, tt.want)
			}
		})
	}
	for _, line := range []string{"", "scan", "./scan"} {
		if _, err := NewCommand(line); err == nil {
			t.Errorf("command %q is taken", line)
		}
	}
	missing, err := NewCommand("/nonexistent/program")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := missing.Scan(t.Context(), message()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing program: %v", err)
	}
}

func TestCheckAddress(t *testing.T) {
	for address, good := range map[string]bool{"/run/x": true, "127.0.0.1:3310": true, "[::1]:3310": true, "host:783": true, "": false, "host": false, ":1": false, "host:": false} {
		if err := CheckAddress(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// FuzzAnswers has answers of servers: none makes more than is bounded, or a field that cannot be one.
func FuzzAnswers(f *testing.F) {
	f.Add("stream: a FOUND")
	f.Add("SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 15.0 / 5.0\r\n\r\nX-Spam-A: b\n")
	f.Add(`{"action":"add header","score":1,"milter":{"add_headers":{"A":["1",{"value":"x","order":1}]},"remove_headers":{"B":1}},"symbols":{"A":1}}`)
	f.Fuzz(func(t *testing.T, answer string) {
		clam, _ := clamdResult(answer)
		one, _ := spamdResult(bufio.NewReader(strings.NewReader(answer)), true)
		two, _ := spamdResult(bufio.NewReader(strings.NewReader(answer)), false)
		three, _ := rspamdResult([]byte(answer))
		for _, r := range []Result{clam, one, two, three} {
			r.keep()
			if text := r.String(); len(text) > 2000 || strings.ContainsAny(text, "\r\n\x00;\"") {
				t.Errorf("%q gives %q", answer, text)
			}
			for _, field := range append(r.Add, r.Remove...) {
				if field.Name == "" || strings.ContainsAny(field.Name, ": \r\n\x00") {
					t.Errorf("%q gives a field %q", answer, field.Name)
				}
			}
		}
	})
}

// TestWRK_27_LongEnvelopes has recipients, a sender and names of any length. A command is started, and rspamd told, all
// the same: of as many recipients as have room, each whole.
func TestWRK_27_LongEnvelopes(t *testing.T) {
	recipients := func(n, length int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%d%s@example.org", i, strings.Repeat("x", length)))
		}
		return list
	}
	long := strings.Repeat("x", 300<<10)
	for _, tt := range []struct {
		name    string
		message Message
		told    int // recipients, at least
	}{
		{"two", Message{Recipients: recipients(2, 1)}, 2},
		{"none", Message{}, 0},
		{"many", Message{Recipients: recipients(600, 230)}, 400},
		{"a hundred thousand", Message{Recipients: recipients(100000, 0)}, 5000},
		{"all that is long", Message{QueueID: long, ClientIP: long, ClientName: long, Helo: long, Sender: long, User: long, Recipients: []string{long, long}}, 2},
		{"of many lines", Message{Recipients: []string{"a\nb@example.org", "\n@example.org", "\x00@example.org"}}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(testenv.ShortDir(t), "scan")
			script := fmt.Sprintf("[ \"$RECIPIENTS_COUNT\" = %d ] || exit 3\n[ $(printf '%%s' \"$RECIPIENTS\" | grep -c '') -ge %d ] || exit 4\n"+
				"printf '%%s\\n' \"$RECIPIENTS\" | grep -Evq '^x+$|@example.org$|^$' && exit 5\nexit 1\n", len(tt.message.Recipients), tt.told)
			if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := NewCommand("/bin/sh " + path)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := c.Scan(t.Context(), &tt.message); err != nil || r.Verdict != Virus {
				t.Errorf("command: %v, %v", r, err)
			}
			h := http.Header{}
			rspamdFields(h, &tt.message)
			var fields bytes.Buffer
			if err := h.Write(&fields); err != nil || fields.Len() > 70<<10 || len(h["Rcpt"]) < min(len(tt.message.Recipients), 200) {
				t.Errorf("rspamd is told of %d recipients, in %d bytes: %v", len(h["Rcpt"]), fields.Len(), err)
			}
		})
	}
}
