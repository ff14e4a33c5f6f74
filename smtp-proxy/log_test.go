package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func jsonLog(w *testenv.Buffer) slog.Handler { return slog.NewJSONHandler(w, nil) }

// logged gives the records with that message, once there are n of them.
func logged(t *testing.T, p *proxy, message string, n int) []map[string]any {
	t.Helper()
	var found []map[string]any
	testenv.Eventually(t, "the log has "+message, func() bool {
		found = nil
		for line := range strings.Lines(p.log.String()) {
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			if record["msg"] == message {
				found = append(found, record)
			}
		}
		return len(found) >= n
	})
	return found
}

// checkRecord compares fields with what they must be: "" is a field that must not be there, "*" one with any value.
func checkRecord(t *testing.T, record map[string]any, want map[string]any) {
	t.Helper()
	for key, value := range want {
		got, has := record[key]
		switch {
		case value == "" && has, value == "*" && (!has || got == ""), value != "" && value != "*" && got != value:
			t.Errorf("%s is %v, want %v, in %v", key, got, value, record)
		}
	}
}

// TestLogTells looks for each field in the lines of a session, of messages, and of those who were refused.
func TestLogTells(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Extend("PIPELINING", "AUTH PLAIN")
	b.Answer(func(a testenv.Asked) string {
		if a.Verb == "." && strings.Contains(a.Line, "spam") {
			return "554 5.7.1 Spam"
		}
		return onLine(a, "RCPT TO:<unknown@", "550 5.1.1 Unknown") + onLine(a, "RCPT TO:<grey@", "450 4.2.0 Later")
	})
	pass := scanWith(t, "F\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "recipok" && strings.HasPrefix(words[1], "<filtered@") || words[0] == "helook" && words[3] == "bad" {
			return "ok 0 No 550 5.7.1 0\n"
		}
		return pass(words)
	})
	p := startProxyWith(t, listenSMTP, jsonLog,
		m.args(append(certificate(t, t.TempDir(), "proxy.example"), behind(b))...)...)
	plain := greeted(t, p.addr)
	c := startTLS(plain)
	c.cmd("EHLO bad", "550")
	c.cmd("EHLO client.example", "250")
	c.cmd("AUTH PLAIN AGZyZWQAeA==", "235")
	c.cmd("MAIL FROM:<from@client.example>", "250")
	c.cmd("RCPT TO:<to@server.example>", "250")
	c.cmd("RCPT TO:<other@server.example>", "250")
	c.cmd("RCPT TO:<unknown@server.example>", "550")
	c.cmd("RCPT TO:<grey@server.example>", "450")
	c.cmd("RCPT TO:<filtered@server.example>", "550")
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	c.envelope()
	c.cmd("DATA", "354")
	c.send("Subject: spam\r\n\r\n.\r\n")
	c.expect("554")
	c.cmd("QUIT", "221")
	session := logged(t, p, "session", 1)[0]
	server := "smtp://" + b.Addr
	checkRecord(t, session, map[string]any{
		"session": "*", "listener": "smtp", "client": plain.LocalAddr().String(), "helo": "client.example", "messages": 2.0, "errors": 4.0,
		"duration": "*", "tls": "TLS 1.3", "cipher": "*", "auth": "PLAIN", "login": "fred", "gate": "", "peer": "",
	})
	mine := map[string]any{
		"session": session["session"], "client": "127.0.0.1", "helo": "client.example", "from": "from@client.example", "tls": "TLS 1.3", "login": "fred", "qid": "*",
	}
	messages := logged(t, p, "message", 2)
	for _, record := range messages {
		checkRecord(t, record, mine)
	}
	checkRecord(t, messages[0], map[string]any{
		"outcome": "accepted", "to": "to@server.example", "recipients": 2.0, "size": 24.0, "queue": "*", "reply": "*", "duration": "*", "server": server, "gate": "",
	})
	checkRecord(t, messages[1], map[string]any{"outcome": "refused", "recipients": 1.0, "reply": "554 5.7.1 Spam", "server": server, "queue": "", "gate": ""})
	refused := logged(t, p, "refused", 4)
	checkRecord(t, refused[0], map[string]any{"session": session["session"], "client": "127.0.0.1", "helo": "bad", "reply": "550 5.7.1 No", "gate": "filter"})
	for i, want := range []map[string]any{
		{"to": "unknown@server.example", "reply": "550 5.1.1 Unknown", "server": server, "gate": ""},
		{"to": "grey@server.example", "reply": "450 4.2.0 Later", "server": server, "gate": ""},
		{"to": "filtered@server.example", "reply": "550 5.7.1 No", "server": "", "gate": "filter"},
	} {
		checkRecord(t, refused[i+1], mine)
		checkRecord(t, refused[i+1], want)
	}
}

// TestLogTellsGate: which gate shut is in the line of what it was shut for.
func TestLogTellsGate(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "B554 5.7.1 Virus\nF\n"))
	p := startProxyWith(t, listenSMTP, jsonLog, m.args(behind(b), "--max-errors=1")...)
	c := greeted(t, p.addr)
	for _, content := range []string{smallMessage, "a\rb\r\n.\r\n"} {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(content)
		c.expect("55")
	}
	c.expectEnd()
	logged(t, p, "session", 1) // or the next one may end first
	c = greeted(t, p.addr)
	c.cmd("XYZZY", "500")
	c.expect("421")
	messages := logged(t, p, "message", 2)
	checkRecord(t, messages[0], map[string]any{"outcome": "refused", "reply": "554 5.7.1 Virus", "gate": "filter", "tls": "", "login": "", "server": ""})
	checkRecord(t, messages[1], map[string]any{"outcome": "refused", "reply": "*", "gate": "bare-newline"})
	sessions := logged(t, p, "session", 2)
	checkRecord(t, sessions[0], map[string]any{"gate": "bare-newline", "messages": 2.0})
	checkRecord(t, sessions[1], map[string]any{"gate": "errors", "errors": 1.0, "tls": ""})
}

// TestLogTellsRefusedData: a server may refuse a message before it has seen it; the client learns that at
// once if DATA came with its recipients, and behind the content if not.
func TestLogTellsRefusedData(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onVerb(a, "DATA", "554 5.7.1 Not from you") })
	p := startProxyWith(t, listenSMTP, jsonLog, behind(b), "--max-refusals=2")
	c := greeted(t, p.addr)
	c.send("MAIL FROM:<from@client.example>\r\nRCPT TO:<to@server.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "554 5.7.1 Not from you"} {
		c.expect(want)
	}
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("554 5.7.1 Not from you")
	c.expect("421 4.7.0")
	want := map[string]any{
		"from": "from@client.example", "to": "", "reply": "554 5.7.1 Not from you", "server": "smtp://" + b.Addr, "gate": "",
	}
	checkRecord(t, logged(t, p, "refused", 1)[0], want)
	want["to"], want["outcome"] = "to@server.example", "refused"
	checkRecord(t, logged(t, p, "message", 1)[0], want)
}

// TestDigestOfTheLog: what the proxy logs is what log sums up.
func TestDigestOfTheLog(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	b.Answer(func(a testenv.Asked) string { return onLine(a, "RCPT TO:<unknown@", "550 5.1.1 Unknown") })
	p := startProxyWith(t, listenSMTP, func(w *testenv.Buffer) slog.Handler { return slog.NewTextHandler(w, nil) }, behind(b), "--max-errors=1")
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	c.cmd("MAIL FROM:<from@client.example>", "250")
	c.cmd("RCPT TO:<unknown@server.example>", "550")
	b.Close()
	c.cmd("RCPT TO:<to@server.example>", "4")
	c.cmd("XYZZY", "500")
	testenv.Eventually(t, "the session is logged", func() bool { return strings.Contains(p.log.String(), "msg=session") })
	file := filepath.Join(t.TempDir(), "log")
	others := "Jan  2 03:04:05 mx pop3-stamp[1]: login failed client=192.0.2.99\n" + strings.Repeat("x", 3*maxLogLine) + "\n"
	must(t, os.WriteFile(file, []byte(others+p.log.String()), 0o600))
	for _, tt := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{file}, 0, []string{"accepted", "next hop  550 5.1.1 Unknown", "errors", "127.0.0.1", "smtp://" + b.Addr}},
		{[]string{"--format=json", "--rows=0", file, file}, 0, []string{`"messages": 2`}},
		{[]string{os.DevNull}, digestNone, []string{"0 lines"}},
		{[]string{file + "x", file}, digestNone, []string{"accepted"}},
	} {
		program := new(program)
		program.settings = *parseSettings(t, append([]string{"log"}, tt.args...)...)
		var out, errs strings.Builder
		status := program.digest(&out, &errs)
		if status != tt.status || (errs.String() != "") != (len(tt.args) == 2 && status != 0) || strings.Contains(out.String(), "192.0.2.99") {
			t.Errorf("%q: status %d, %s%s", tt.args, status, &errs, &out)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q: no %q in\n%s", tt.args, want, &out)
			}
		}
	}
}
