package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "recipok" && strings.HasPrefix(words[1], "<bad@") {
			return "ok 0 Unknown 550 5.1.1 0\n"
		}
		return "ok 1\n"
	})
	stamps := t.TempDir()
	stampAged(0)(t, filepath.Join(stamps, "192.0.2.1"))
	senders := filepath.Join(t.TempDir(), "senders")
	must(t, os.WriteFile(senders, []byte("ann ann@b.example\n"), 0o600))
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   []string
	}{
		{"open", []string{"--client=192.0.2.1", "--from=a@b.example", "--to=good@d.example"}, 0, []string{"load           open", "stamp          open", "recipient      open"}},
		{"no stamp", []string{"--client=192.0.2.2"}, 75, []string{"stamp          shut   421 4.7.0"}},
		{"recipient's gate", []string{"--client=192.0.2.1", "--to=bad@d.example"}, 1, []string{"               bad@d.example: recipok\n"}},
		{"percent", []string{"--client=192.0.2.2", "--clientip-scope=relay", "--local-domains=d.example", "--to=a%x.example@d.example", "--to=good@d.example"}, 1,
			[]string{"               a%x.example@d.example: stamp, as the local part names another place", "               good@d.example: all gates\n"}},
		{"recipient", []string{"--client=192.0.2.1", "--to=good@d.example", "--to=bad@d.example"}, 1, []string{"recipient      open", "recipient      shut   550 5.1.1 Unknown"}},
		{"sender", []string{"--client=192.0.2.1", "--from=a@@b"}, 1, []string{"sender         shut   501"}},
		{"sender of the stamp", []string{"--client=192.0.2.1", "--clientip-senders=" + senders, "--from=a@b.example"}, 1, []string{"sender         shut   553 5.7.1"}},
		{"client", []string{"--client=x"}, 78, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := new(program)
			p.settings = *parseSettings(t, append(m.args(behind(b), "--clientip-dir", stamps, "explain"), tt.args...)...)
			var out, errs strings.Builder
			if status := p.explain(&out, &errs); status != tt.status {
				t.Errorf("status %d, want %d\n%s%s", status, tt.status, &out, &errs)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, &out)
				}
			}
		})
	}
	if n := transactions(b); n != 0 {
		t.Errorf("the upstream server saw %q", b.Commands())
	}
}

func TestReplyClasses(t *testing.T) {
	t.Parallel()
	p := startProxy(t, behind(testenv.StartBackend(t)))
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	c.cmd("XYZZY", "500")
	for class, want := range map[int]uint64{2: 5, 3: 1, 4: 0, 5: 1} {
		if got := p.metrics.replies[class].Load(); got != want {
			t.Errorf("%d replies of class %d, want %d", got, class, want)
		}
	}
}

// TestMetrics also looks for what clients choose: it must not be in a label, LOG-03.
func TestMetrics(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	p := startProxy(t, behind(b))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- p.registry().Serve(l) }()
	c := greeted(t, p.addr)
	c.envelope()
	c.cmd("DATA", "354")
	c.send(smallMessage)
	c.expect("250")
	c.send("\x80\r\n")
	c.expect("554")
	r, err := http.Get("http://" + l.Addr().String() + "/metrics")
	must(t, err)
	text, err := io.ReadAll(r.Body)
	must(t, err)
	r.Body.Close()
	for _, want := range []string{
		`postern_smtp_proxy_messages_total{outcome="accepted"} 1`, `postern_smtp_proxy_connections_total{listener="smtp"} 1`,
		`postern_smtp_proxy_refused_total{gate="foreign-protocol"} 1`, `postern_smtp_proxy_refused_total{gate="load"} 0`,
		`postern_smtp_proxy_message_bytes_total 24`, `postern_smtp_proxy_upstream_dialed_total 1`, `postern_smtp_proxy_replies_total{class="5xx"} 1`,
		`postern_smtp_proxy_phase_seconds_count{phase="message"} 1`, `postern_smtp_proxy_phase_seconds_count{phase="reply"} 1`,
		`postern_smtp_proxy_phase_seconds_count{phase="connect"} 1`, `postern_smtp_proxy_phase_seconds_count{phase="scan"} 0`,
		`postern_smtp_proxy_next_hop_seconds_count{server="smtp://` + b.Addr + `"} 1`, `postern_smtp_proxy_next_hop_left_alone{server="smtp://` + b.Addr + `"} 0`,
	} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("no %q in the metrics", want)
		}
	}
	for _, word := range []string{"client.example", "server.example", "127.0.0.1"} {
		if strings.Contains(strings.ReplaceAll(string(text), b.Addr, "the next hop"), word) {
			t.Errorf("%q is in the metrics", word)
		}
	}
	l.Close()
	if err := testenv.Receive(t, "the end of the metrics", served); err != nil {
		t.Error(err)
	}
}
