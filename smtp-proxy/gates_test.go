package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestGates(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"load", []string{"--maxloadavg=1", "--loadavg-file=" + file("load", "2 2 2 1/1 1\n")}, "421 4.3.2 proxy.example System load"},
		{"load below", []string{"--maxloadavg=3", "--loadavg-file=" + file("load", "2 2 2 1/1 1\n")}, "220"},
		{"pressure", []string{"--max-pressure=io=10", "--pressure-dir=" + filepath.Dir(file("io", "some avg10=12.00 avg60=0 avg300=0 total=1\nfull avg10=0\n"))}, "421 4.3.2 proxy.example System is too busy"},
		{"pressure below", []string{"--max-pressure=io=13", "--pressure-dir=" + dir}, "220"},
		{"pressure unknown", []string{"--max-pressure=cpu=1", "--pressure-dir=" + dir}, "220"},
		{"refuse-file", []string{"--refuse-file=" + file("refuse", "Back at noon\nsecond line\n")}, "421 4.3.2 proxy.example Back at noon"},
		{"refuse-file absent", []string{"--refuse-file=" + filepath.Join(dir, "none")}, "220"},
		{"stamp", []string{"--clientip-dir=" + filepath.Dir(file("stamps/192.0.2.1", ""))}, "421 4.7.0 proxy.example "},
		{"stamp exempt", []string{"--clientip-dir=" + filepath.Join(dir, "stamps"), "--clientip-exempt=192.0.2.0/24 127.0.0.0/8"}, "220"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startProxy(t, append(tt.args, behind(b))...)
			c := dial(t, p.addr)
			c.expect(tt.want)
			if tt.want != "220" {
				c.expectEnd()
			}
		})
	}
	if n := b.Opened(); n != 0 {
		t.Errorf("the next hop was connected to %d times", n)
	}
}

// FS-05: what is no regular file, or is somebody else's, is no stamp.
func TestStampGate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		make  func(t *testing.T, path string)
		fresh bool
	}{
		{"none", func(*testing.T, string) {}, false},
		{"fresh", stampAged(0), true},
		{"almost too old", stampAged(590 * time.Second), true},
		{"too old", stampAged(601 * time.Second), false},
		{"a little in the future", stampAged(-3 * time.Second), true},
		{"in the future", stampAged(-time.Minute), false},
		{"symlink", func(t *testing.T, path string) {
			stampAged(0)(t, path+".real")
			must(t, os.Symlink(path+".real", path))
		}, false},
		{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o755)) }, false},
		{"FIFO", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o644)) }, false},
		{"socket", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			dir := testenv.ShortDir(t)
			tt.make(t, filepath.Join(dir, "127.0.0.1"))
			p := startProxy(t, behind(b), "--clientip-dir", dir)
			c := dial(t, p.addr)
			if tt.fresh {
				c.expect("220")
				return
			}
			c.expect("421 4.7.0")
			c.expectEnd()
			testenv.Eventually(t, "the log tells of the gate", func() bool {
				return strings.Contains(p.log.String(), "gate=stamp") && strings.Contains(p.log.String(), "client=127.0.0.1")
			})
		})
	}
}

func stampAged(age time.Duration) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		must(t, os.WriteFile(path, nil, 0o644))
		when := time.Now().Add(-age)
		must(t, os.Chtimes(path, when, when))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStampMaxage(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	stampAged(30*time.Minute)(t, filepath.Join(dir, "127.0.0.1"))
	p := startProxy(t, behind(b), "--clientip-dir", dir, "--clientip-maxage=1h")
	dial(t, p.addr).expect("220")
}

func TestStampOwner(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "127.0.0.1")
	stampAged(0)(t, path)
	p := startProxy(t, behind(b), "--clientip-dir", dir, "--clientip-owner=nobody")
	dial(t, p.addr).expect("421 4.7.0")
	must(t, os.Chown(path, 65534, 65534))
	dial(t, p.addr).expect("220")
}

func TestStampDirectoryMissing(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := filepath.Join(t.TempDir(), "stamps")
	must(t, os.Mkdir(dir, 0o755))
	p := startProxy(t, behind(b), "--clientip-dir", dir)
	must(t, os.Remove(dir))
	dial(t, p.addr).expect("421 4.7.0")
}

func TestStampScopeRelay(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	dir := t.TempDir()
	p := startProxy(t, behind(b), "--clientip-dir", dir, "--clientip-scope=relay", "--local-domains=Here.example .sub.example")
	c := greeted(t, p.addr)
	c.cmd("MAIL FROM:<a@b.example>", "250")
	c.cmd("RCPT TO:<x@here.EXAMPLE>", "250")
	c.cmd("RCPT TO:<x@a.sub.example>", "250")
	c.cmd("RCPT TO:<x@sub.example>", "550 5.7.1")
	c.cmd("RCPT TO:<x@there.example>", "550 5.7.1")
	stampAged(0)(t, filepath.Join(dir, "127.0.0.1"))
	c.cmd("RCPT TO:<x@there.example>", "250")
}
