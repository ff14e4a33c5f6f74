package listen

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/safedir"
	"postern/internal/sockspec"
	"postern/internal/testenv"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, r Request) (Set, error) {
	t.Helper()
	set, err := Open([]Request{r}, quiet())
	if err == nil {
		t.Cleanup(func() { set.Close() })
	}
	return set, err
}

func TestOpenServesAllKinds(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	set, err := Open([]Request{
		{Name: "a", Specs: []string{path, "tcp:127.0.0.1:0"}},
		{Name: "off"},
	}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if len(set["a"]) != 2 || len(set["off"]) != 0 {
		t.Fatalf("listeners %v", set)
	}
	for _, l := range set["a"] {
		go answer(l, "hello")
		c := testenv.Dial(t, l.Addr().Network(), l.Addr().String())
		buf := make([]byte, 5)
		if n, err := c.Read(buf); string(buf[:n]) != "hello" {
			t.Errorf("%s: read %q, %v", l.Addr(), buf[:n], err)
		}
		c.Close()
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	if err := set.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket still there after Close: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := testenv.ShortDir(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	tests := []struct{ name, spec, want string }{
		{"bad specification", "inet:x", `listener a: socket specification "inet:x": invalid port "x"`},
		{"port in use", "tcp:" + busy.Addr().String(), "address already in use"},
		{"no directory", filepath.Join(dir, "none", "s"), "no such file or directory"},
		{"path too long", filepath.Join(dir, strings.Repeat("x", 107)), "a UNIX socket takes at most 107"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := filepath.Join(dir, "first")
			_, err := Open([]Request{{Name: "first", Specs: []string{first}}, {Name: "a", Specs: []string{tt.spec}}}, quiet())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if _, err := os.Lstat(first); !os.IsNotExist(err) {
				t.Errorf("the first listener was left behind: %v", err)
			}
		})
	}
	if err := Check([]Request{{Name: "a", Specs: []string{"/x", "inet:x"}}}); err == nil {
		t.Error("Check found no error")
	}
}

// MUX-04: what is at the path when a socket is bound there.
// FS-11.
func TestPathTaken(t *testing.T) {
	tests := []struct {
		name  string
		make  func(t *testing.T, path string)
		want  string // "" if it is replaced
		stays bool
	}{
		{"stale socket", makeStale, "", false},
		{"live socket", func(t *testing.T, path string) { listenAt(t, "unix", path) }, "another process listens there", true},
		{"datagram socket", func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}, "may be in use", true},
		{"full backlog", makeFull, "may be in use", true},
		{"file", func(t *testing.T, path string) { writeFile(t, path) }, "no socket", true},
		{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "no socket", true},
		{"FIFO", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "no socket", true},
		{"symlink to a file", func(t *testing.T, path string) {
			writeFile(t, path+".target")
			must(t, os.Symlink(path+".target", path))
		}, "no socket", true},
		{"symlink to a stale socket", func(t *testing.T, path string) {
			makeStale(t, path+".target")
			must(t, os.Symlink(path+".target", path))
		}, "no socket", true},
		{"dangling symlink", func(t *testing.T, path string) { must(t, os.Symlink(path+".target", path)) }, "no socket", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(testenv.ShortDir(t), "s")
			tt.make(t, path)
			before, err := os.Lstat(path)
			must(t, err)
			set, err := open(t, Request{Name: "a", Specs: []string{path}})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				go answer(set["a"][0], "new")
				if got := readAll(t, path); got != "new" {
					t.Errorf("answer %q", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what was there was touched: %v", err)
			}
			if _, err := os.Lstat(path + ".target"); tt.name == "dangling symlink" && !os.IsNotExist(err) {
				t.Errorf("the link's target was made: %v", err)
			}
		})
	}
}

func makeStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
}

func listenAt(t *testing.T, network, path string) {
	t.Helper()
	l, err := net.Listen(network, path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
}

// makeFull makes a listener that takes no connection more: connect gives EAGAIN.
func makeFull(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, setBacklog(l, 0))
	for range 10 {
		c, err := new(net.Dialer).Dial("unix", path)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the backlog does not get full")
}

func writeFile(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("x"), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// FS-11.
func TestWorldWritableDirectory(t *testing.T) {
	dir := testenv.ShortDir(t)
	path := filepath.Join(dir, "s")
	must(t, os.Chmod(dir, 0o777))
	if _, err := open(t, Request{Name: "a", Specs: []string{path}}); err == nil || !strings.Contains(err.Error(), "writable for everybody") {
		t.Errorf("error %v in a world-writable directory", err)
	}
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	if _, err := open(t, Request{Name: "a", Specs: []string{path}}); err == nil {
		t.Error("no error in a sticky directory")
	}
	if err := Check([]Request{{Name: "a", Specs: []string{path}}}); !errors.Is(err, safedir.ErrInsecure) {
		t.Errorf("Check says %v of a sticky directory", err)
	}
	must(t, os.Chmod(dir, 0o755))
	if err := Check([]Request{{Name: "a", Specs: []string{dir + "/none/s"}}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check says %v of a directory that is not there", err)
	}
}

// A socket must never have more rights than asked for, even with umask 0, and
// files made by other goroutines meanwhile must not be touched by it.
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0, 0o600, 0o770, 0o777} {
			t.Run(fmt.Sprintf("umask %03o mode %03o", umask, mode), func(t *testing.T) {
				dir := testenv.ShortDir(t)
				old := syscall.Umask(umask)
				defer syscall.Umask(old)
				want := mode
				if want == 0 {
					want = DefaultMode
				}
				checkModes(t, filepath.Join(dir, "s"), mode, want, umask)
			})
		}
	}
}

func checkModes(t *testing.T, path string, mode, want fs.FileMode, umask int) {
	t.Helper()
	var done atomic.Bool
	var watchers sync.WaitGroup
	watchers.Go(func() {
		for !done.Load() {
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm()&^want != 0 {
				t.Errorf("socket seen with mode %v, never more than %v wanted", info.Mode().Perm(), want)
				return
			}
		}
	})
	watchers.Go(func() {
		other := path + ".file"
		for !done.Load() {
			f, err := os.OpenFile(other, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
			if err != nil {
				t.Error(err)
				return
			}
			info, err := f.Stat()
			f.Close()
			os.Remove(other)
			if err != nil || info.Mode().Perm() != 0o666&^fs.FileMode(umask) {
				t.Errorf("another goroutine's file got mode %v, %v", info.Mode(), err)
				return
			}
		}
	})
	for range 50 {
		set, err := Open([]Request{{Name: "a", Specs: []string{path}, Mode: mode}}, quiet())
		if err != nil {
			t.Error(err)
			break
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, want)
		}
		set.Close()
	}
	done.Store(true)
	watchers.Wait()
}

func TestOwner(t *testing.T) {
	testenv.NeedRoot(t)
	path := filepath.Join(testenv.ShortDir(t), "s")
	if _, err := open(t, Request{Name: "a", Specs: []string{path}, Mode: 0o770, Owner: &Owner{UID: 65534, GID: 65533}}); err != nil {
		t.Fatal(err)
	}
	st, err := lstat(path)
	if err != nil || st.Uid != 65534 || st.Gid != 65533 || st.Mode&0o7777 != 0o770 {
		t.Errorf("owner %d.%d mode %o, %v; want 65534.65533 0770", st.Uid, st.Gid, st.Mode, err)
	}
}

// A second program that has taken the path keeps its socket.
func TestCloseLeavesForeignSocket(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s")
	set, err := open(t, Request{Name: "a", Specs: []string{path}})
	must(t, err)
	must(t, os.Remove(path))
	listenAt(t, "unix", path)
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other program's socket was removed: %v", err)
	}
}

// Of programs that start at the same time at a stale socket one wins, and the
// winner's socket is the one that stays.
func TestStartTogether(t *testing.T) {
	for range 20 {
		path := filepath.Join(testenv.ShortDir(t), "s")
		makeStale(t, path)
		var wins atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				set, err := Open([]Request{{Name: "a", Specs: []string{path}}}, quiet())
				if err == nil {
					wins.Add(1)
					t.Cleanup(func() { set.Close() })
				}
			})
		}
		all.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d of 8 programs got the socket", wins.Load())
		}
		c, err := testenv.Connect("unix", path)
		if err != nil {
			t.Fatalf("nobody listens at the socket: %v", err)
		}
		c.Close()
	}
}

func TestBacklog(t *testing.T) {
	for _, spec := range []string{"tcp:127.0.0.1:0", filepath.Join(testenv.ShortDir(t), "s")} {
		set, err := open(t, Request{Name: "a", Specs: []string{spec}, Backlog: 3})
		must(t, err)
		got := backlog(t, set["a"][0])
		if got != 3 {
			t.Errorf("%s: backlog %d, want 3", spec, got)
		}
	}
	set, err := open(t, Request{Name: "a", Specs: []string{"tcp:127.0.0.1:0"}})
	must(t, err)
	if got := backlog(t, set["a"][0]); got != min(DefaultBacklog, somaxconn(t)) {
		t.Errorf("default backlog %d", got)
	}
}

// backlog counts what a listener that accepts nothing takes, for UNIX, and asks
// the kernel for TCP: tcpi_sacked of a listening socket is its backlog, tcp(7).
func backlog(t *testing.T, l net.Listener) int {
	t.Helper()
	if l.Addr().Network() == "unix" {
		for n := 0; ; n++ {
			c, err := new(net.Dialer).Dial("unix", l.Addr().String())
			if err != nil {
				return n - 1 // the kernel takes one more than asked for
			}
			defer c.Close()
		}
	}
	raw, err := l.(syscall.Conn).SyscallConn()
	must(t, err)
	var info *unix.TCPInfo
	must(t, control(raw, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	}))
	return int(info.Sacked)
}

func somaxconn(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	must(t, err)
	var n int
	_, err = fmt.Sscan(string(data), &n)
	must(t, err)
	return n
}

// MUX-05: TCP on more than loopback is worth a warning, unless it is meant so.
func TestWarning(t *testing.T) {
	tests := []struct {
		spec   string
		public bool
		warns  bool
	}{
		{fmt.Sprintf("inet_any:%d", testenv.FreePort(t)), false, true},
		{"tcp:0.0.0.0:0", false, true},
		{fmt.Sprintf("inet_any:%d", testenv.FreePort(t)), true, false},
		{fmt.Sprintf("inet:%d", testenv.FreePort(t)), false, false},
		{"tcp:127.0.0.1:0", false, false},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		set, err := Open([]Request{{Name: "a", Specs: []string{tt.spec}, Public: tt.public}}, log)
		must(t, err)
		set.Close()
		if got := strings.Contains(out.String(), "can be reached from other machines"); got != tt.warns {
			t.Errorf("%s, public %v: log %q, want warning %v", tt.spec, tt.public, out.String(), tt.warns)
		}
	}
}

// TestKeepAlive: connections inherit from the listener that peers are asked whether they are there.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	l, err := listenTCP(sockspec.Spec{Network: "tcp", Address: "127.0.0.1:0"}, DefaultBacklog)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	testenv.Dial(t, "tcp", l.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, option, want int }{{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9}, {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}} {
		got := 0
		if err := control(raw, func(fd int) (err error) { got, err = unix.GetsockoptInt(fd, o.level, o.option); return err }); err != nil || got != o.want {
			t.Errorf("option %d is %d, %v, want %d", o.option, got, err, o.want)
		}
	}
}
