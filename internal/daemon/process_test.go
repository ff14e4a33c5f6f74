package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

func start(t *testing.T, env []string, args ...string) *testenv.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), append(env, childVariable+"=1")...)
	return testenv.Start(t, cmd)
}

// openDir gives a short directory that any user may use.
func openDir(t *testing.T) string {
	t.Helper()
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A whole life as root: order, drop, service manager, reload, drain. FS-14: rights, umask and core size; that no
// new privileges can be had is for the unit to set.
func TestLife(t *testing.T) {
	testenv.NeedRoot(t)
	dir := openDir(t)
	m := testenv.StartManager(t)
	socket, pid := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	p := start(t, []string{"NOTIFY_SOCKET=" + m.Path}, "--hello", socket, "--pidfile", pid, "--log", "stderr", "--user", "nobody")
	m.Wait("READY=1")
	if want := []string{"STATUS=waiting for clients", "READY=1"}; !slices.Equal(m.Seen, want) {
		t.Errorf("messages %q, want %q", m.Seen, want)
	}
	p.WaitOutput("msg=ready")
	for _, want := range []string{
		"msg=open euid=0 listeners=1 pidfile=false", // root, sockets bound, no pid file yet
		"msg=serve euid=65534 pidfile=true",
		`msg=inherited names="" error=<nil>`,
	} {
		if !strings.Contains(p.Output(), want) {
			t.Errorf("no %q in the log", want)
		}
	}
	checkFiles(t, p, socket, pid)
	checkProcess(t, p.Pid())

	p.Stop(syscall.SIGHUP)
	before := monotonic(t)
	text := m.Wait(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	m.Wait("READY=1")
	usec, err := strconv.ParseInt(text[strings.LastIndexByte(text, '=')+1:], 10, 64)
	if err != nil || time.Duration(usec)*time.Microsecond-before < -time.Second || time.Duration(usec)*time.Microsecond-before > 10*time.Second {
		t.Errorf("%q, the clock was at %v", text, before)
	}
	p.WaitOutput("msg=reloaded")

	p.Stop(syscall.SIGTERM)
	m.Wait("STOPPING=1")
	m.Wait("STATUS=draining")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	// nobody may not remove files from root's directory; it must not matter.
	if _, err := os.Lstat(pid); err != nil {
		t.Errorf("pid file: %v", err)
	}
	if strings.Contains(p.Output(), "level=WARN") || strings.Contains(p.Output(), "level=ERROR") {
		t.Errorf("complaints in the log:\n%s", p.Output())
	}
}

func checkFiles(t *testing.T, p *testenv.Process, socket, pid string) {
	t.Helper()
	if text, err := dial(socket); text != "hello\n" {
		t.Errorf("answer %q, %v", text, err)
	}
	if data, err := os.ReadFile(pid); err != nil || string(data) != fmt.Sprintf("%d\n", p.Pid()) {
		t.Errorf("pid file %q, %v", data, err)
	}
	for path, want := range map[string]struct {
		mode fs.FileMode
		uid  uint32
	}{pid: {0o644, 0}, socket: {fs.ModeSocket | 0o700, 65534}} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != want.mode || uid != want.uid {
			t.Errorf("%s: mode %v, owner %d; want %v, %d", path, info.Mode(), uid, want.mode, want.uid)
		}
	}
}

// checkProcess looks at all threads: FS-12 and FS-14.
func checkProcess(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads of process %d: %v", pid, err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		text := strings.Join(strings.FieldsFunc(string(data), func(r rune) bool { return r == '\t' || r == ' ' }), " ")
		for _, want := range []string{"Uid: 65534 65534 65534 65534\n", "Gid: 65534 65534 65534 65534\n", "Groups: 65534",
			"CapEff: 0000000000000000\n", "CapPrm: 0000000000000000\n", "Umask: 0077\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", task, want, text)
			}
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil || !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("core size is not 0: %v\n%s", err, limits)
	}
}

func monotonic(t *testing.T) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, _, _ := strings.Cut(string(data), " ")
	d, err := time.ParseDuration(seconds + "s")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStart: who has its own settings and log begins at the listeners, and says itself what went wrong.
func TestStart(t *testing.T) {
	testenv.NeedRoot(t)
	begin := func(trouble string, env ...string) *testenv.Process {
		cmd := exec.Command(os.Args[0], trouble)
		cmd.Env = append(os.Environ(), append(env, childVariable+"="+childStarts)...)
		return testenv.Start(t, cmd)
	}
	for trouble, want := range map[string]string{"open": "the caller says: open key: file does not exist\n", "serve": "the caller says: no more\n"} {
		p := begin(trouble)
		if status := p.Wait(); status != 3 || !strings.Contains(p.Output(), want) || strings.Contains(p.Output(), "level=ERROR") {
			t.Errorf("%s: status %d, want %q and no error in the log:\n%s", trouble, status, want, p.Output())
		}
	}
	m := testenv.StartManager(t)
	p := begin("", "NOTIFY_SOCKET="+m.Path)
	m.Wait("READY=1")
	p.WaitOutput("msg=serve euid=65534")
	p.Stop(syscall.SIGTERM)
	m.Wait("STOPPING=1")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// Signs of life come after READY=1, at the pace that the service manager asked for.
func TestWatchdog(t *testing.T) {
	m := testenv.StartManager(t)
	p := start(t, []string{"NOTIFY_SOCKET=" + m.Path, "WATCHDOG_USEC=200000"}, "--log", "stderr")
	m.AwaitPat()
	if !slices.Contains(m.Seen, "READY=1") {
		t.Errorf("a sign of life before READY=1: %q", m.Seen)
	}
	begin := time.Now()
	for range 5 {
		m.AwaitPat()
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("5 signs of life in %v, want 500ms", took)
	}
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// A watchdog that is meant for another process is not ours to feed.
func TestWatchdogOfAnother(t *testing.T) {
	m := testenv.StartManager(t)
	p := start(t, []string{"NOTIFY_SOCKET=" + m.Path, "WATCHDOG_USEC=20000", "WATCHDOG_PID=1"}, "--log", "stderr")
	m.Wait("READY=1")
	p.Stop(syscall.SIGTERM)
	m.Wait("STOPPING=1")
	p.Wait()
	m.Drain()
	if m.Pats != 0 {
		t.Errorf("%d signs of life", m.Pats)
	}
}

// The daemon under the real systemd-socket-activate, as root that drops.
func TestSocketActivation(t *testing.T) {
	tool := testenv.Path(t, "socket activation", "systemd-socket-activate")
	dir := openDir(t)
	socket, bound := filepath.Join(dir, "s"), filepath.Join(dir, "bound")
	p := testenv.Start(t, exec.Command(tool, "-l", socket, "--fdname=hello", "-E", childVariable+"=1",
		os.Args[0], "--hello", bound, "--log", "stderr"))
	testenv.Eventually(t, "an answer", func() bool {
		text, _ := dial(socket)
		return text == "hello\n"
	})
	p.WaitOutput(`msg=inherited names=""`)
	p.Stop(syscall.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if _, err := os.Lstat(bound); !os.IsNotExist(err) {
		t.Errorf("the setting's socket was bound beside the passed one: %v", err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the passed socket was removed: %v", err)
	}
}

// What stops the start, with its exit status and text, and nothing left behind.
func TestStartErrors(t *testing.T) {
	testenv.NeedRoot(t)
	dir := openDir(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	typo := write("typo.conf", "count 3\nconut 4\n")
	file := write("file", "")
	if err := os.Symlink(file, filepath.Join(dir, "link.pid")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"usage", []string{"--nonsense"}, 64, "example: error: unknown flag --nonsense\nexample: hint: example --help lists all flags\n"},
		{"typo", []string{"--config", typo}, 78, "example: error: " + typo + ":2: conut: unknown key\n"},
		{"root", []string{"--user", "root"}, 78, "example: error: user: root (0.0): refusing to run as root"},
		{"unknown user", []string{"--user", "no-such-user"}, 78, "unknown user no-such-user"},
		{"empty user", []string{"--user", ""}, 78, "user is empty"},
		{"facility", []string{"--syslog-facility", "x"}, 78, `syslog-facility: unknown syslog facility "x"`},
		{"bad level", []string{"--log-level", "x"}, 64, `--log-level: "x" is none of debug, info, notice, warn, error`},
		{"journal not there", []string{"--log", "journal"}, 1, "example: error: log to the journal: it is not there"},
		{"listener", []string{"--hello", file}, 1, "no socket; it was left alone"},
		{"open", []string{"--trouble", "open"}, 78, `msg="start failed" error="open key: file does not exist"`},
		{"pid file", []string{"--pidfile", filepath.Join(dir, "link.pid")}, 1, "there is a symbolic link"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--hello", filepath.Join(dir, "s")}, tt.args...)
			if !slices.Contains(args, "--log") {
				args = append(args, "--log", "stderr")
			}
			p := start(t, nil, args...)
			if status := p.Wait(); status != tt.status || !strings.Contains(p.Output(), tt.want) {
				t.Errorf("status %d, output:\n%s\nwant %d, %s", status, p.Output(), tt.status, tt.want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 3 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}
