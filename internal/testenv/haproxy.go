package testenv

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// HAProxy is a real HAProxy that passes TCP connections on, with a PROXY header before each.
type HAProxy struct {
	PortV1, PortV2 int // where clients connect, by the version of the header
	Process        *Process

	t     testing.TB
	stats string
}

// haproxyConf checks the server with an SMTP dialog of its own, under a PROXY header that says so.
const haproxyConf = `global
  stats socket %[1]s mode 600
defaults
  mode tcp
  timeout connect 30s
  timeout client 2m
  timeout server 2m
  timeout check 20s
  option smtpchk EHLO haproxy.example.org
listen one
  bind 127.0.0.1:%[2]d
  server s1 %[4]s send-proxy check check-send-proxy inter 500ms
listen two
  bind 127.0.0.1:%[3]d
  server s2 %[4]s send-proxy-v2 check check-send-proxy inter 500ms
`

// StartHAProxy starts a HAProxy in front of the server at an address.
func StartHAProxy(t testing.TB, server string) *HAProxy {
	t.Helper()
	const what = "HAProxy in front"
	program := Path(t, what, "haproxy")
	dir := ShortDir(t)
	h := &HAProxy{PortV1: FreePort(t), PortV2: FreePort(t), stats: filepath.Join(dir, "stats"), t: t}
	conf := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(conf, fmt.Appendf(nil, haproxyConf, h.stats, h.PortV1, h.PortV2, server), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Process = Start(t, exec.Command(program, "-db", "-f", conf))
	Eventually(t, "HAProxy to listen", func() bool {
		if !h.Process.Running() {
			t.Fatalf("HAProxy has ended: %s", h.Process.Output())
		}
		conn, err := net.Dial("unix", h.stats)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return h
}

// Stats asks HAProxy for its figures, in CSV.
func (h *HAProxy) Stats() string {
	h.t.Helper()
	conn, err := net.Dial("unix", h.stats)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := conn.Write([]byte("show stat\n")); err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}
