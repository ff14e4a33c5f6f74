package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"postern/internal/testenv"
)

// pty is a pseudo-terminal with a process on it.
type pty struct {
	t      *testing.T
	master *os.File
	slave  *os.File // kept open, so that what the process left can be looked at
	cmd    *exec.Cmd
	done   chan struct{}

	mu     sync.Mutex
	screen strings.Builder // all that was written
}

// onTerminal starts the program with its input and output on a new terminal,
// which is also its controlling one.
func onTerminal(t *testing.T, columns, rows int, args ...string) *pty {
	t.Helper()
	p := openPty(t, columns, rows)
	p.start(true, args...)
	return p
}

func openPty(t *testing.T, columns, rows int) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.LeaveOut(t, "terminal of mx-ctrl top", err.Error())
	}
	t.Cleanup(func() { master.Close() })
	p := &pty{t: t, master: master, done: make(chan struct{})}
	var number int
	p.control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		var err error
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.slave.Close() })
	p.resize(columns, rows)
	return p
}

// start runs the program on the terminal, with a keyboard only if it is made its
// controlling terminal.
func (p *pty) start(controlling bool, args ...string) {
	t := p.t
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(exe, args...)
	p.cmd.Args[0] = own
	p.cmd.Env = append(os.Environ(), "MX_CTRL_TEST_CHILD=1")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: controlling}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.cmd.Wait()
		close(p.done)
	}()
	go p.read()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		testenv.Receive(t, "the end of the program", p.done)
	})
}

func (p *pty) control(f func(fd int) error) {
	p.t.Helper()
	raw, err := p.master.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil || inner != nil {
		p.t.Fatal(err, inner)
	}
}

func (p *pty) resize(columns, rows int) {
	p.t.Helper()
	p.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)})
	})
}

// read notes what appears until the test closes the terminal.
func (p *pty) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := p.master.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.screen.Write(buf[:n])
		p.mu.Unlock()
	}
}

// written returns everything written so far, as the program wrote it: the terminal
// puts a CR before each LF.
func (p *pty) written() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.screen.String(), "\r\n", "\n")
}

// frame returns the last whole frame that was drawn: it begins with the cursor in
// the corner, and ends where the next one begins or with the screen cleared below.
func (p *pty) frame() string {
	frames := strings.Split(p.written(), cursorHome)
	last := frames[len(frames)-1]
	if !strings.Contains(last, clearBelow) && len(frames) > 1 {
		last = frames[len(frames)-2]
	}
	return last
}

// wait waits until the last frame has a text.
func (p *pty) wait(text string) {
	p.t.Helper()
	testenv.Eventually(p.t, fmt.Sprintf("%q on the screen", text), func() bool {
		if strings.Contains(p.frame(), text) {
			return true
		}
		select {
		case <-p.done:
			p.t.Fatalf("ended (%v) before it showed %q:\n%q", p.cmd.ProcessState, text, p.written())
		default:
		}
		return false
	})
}

func (p *pty) press(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for the end and gives the exit status.
func (p *pty) ended() int {
	p.t.Helper()
	testenv.Receive(p.t, "the end of the program", p.done)
	return p.cmd.ProcessState.ExitCode()
}

// mode returns what of the terminal's mode matters: lines and echo.
func (p *pty) mode() (mode string) {
	p.t.Helper()
	raw, err := p.slave.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		tio, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err != nil {
			p.t.Error(err)
			return
		}
		mode = fmt.Sprintf("lines %v, echo %v, signals %v", tio.Lflag&unix.ICANON != 0, tio.Lflag&unix.ECHO != 0, tio.Lflag&unix.ISIG != 0)
	})
	return mode
}

const (
	cooked = "lines true, echo true, signals true"
	rawish = "lines false, echo false, signals true"
)

// restored fails the test unless the terminal is as it was before the program.
func (p *pty) restored() {
	p.t.Helper()
	if got := p.mode(); got != cooked {
		p.t.Errorf("the terminal is left with %s", got)
	}
	testenv.Eventually(p.t, "the screen to be given back", func() bool {
		return strings.Count(p.written(), enterScreen) > 0 && strings.HasSuffix(p.written(), leaveScreen)
	})
}

// counting is a multiplexor whose first worker says how often it was asked, up to three times: a number that changed
// later might be missed on the screen.
func counting(t *testing.T) *fake {
	var mu sync.Mutex
	n := 0
	return topFake(t, func() string {
		mu.Lock()
		defer mu.Unlock()
		n = min(n+1, 3)
		return strings.Replace(workersReply, "scan QQ", fmt.Sprintf("asked %d\x1b[31m", n), 1)
	})
}

func startTop(t *testing.T, f *fake) *pty {
	t.Helper()
	p := onTerminal(t, 100, 30, "top", "-s", f.socket, "--interval", "100ms")
	p.wait("asked 3?[31m")
	if got := p.mode(); got != rawish {
		t.Errorf("while it runs the terminal has %s", got)
	}
	return p
}

func TestTopOnATerminal(t *testing.T) {
	f := counting(t)
	p := startTop(t, f)
	frame := p.frame()
	for _, want := range []string{reverse + "mx-ctrl top  " + f.socket + " ", "Workers 5: 2 busy, 1 idle, 1 killed, 1 stopped",
		reverse + "SLOT STATE       PID    FOR NOW      LAST     DOING", "   1 busy       6787  1m15s relayok  relayok  relayok 1.2.3.4\r\n"} {
		if !strings.Contains(frame, want) {
			t.Errorf("no %q in\n%q", want, frame)
		}
	}

	p.press(" ")
	p.wait("PAUSED")
	asked := len(f.requests())
	p.press("x \x1b[A ") // keys without a meaning, on, off: one more time asked at most
	p.resize(60, 17)
	testenv.Eventually(t, "a paused frame of 17 lines", func() bool {
		frame := p.frame()
		return strings.Count(frame, "\r\n") == 16 && strings.Contains(frame, "PAUSED") && strings.Contains(frame, "... and 1 idle, 1 killed, 1 stopped")
	})
	// It draws on, with the clock, and does not ask.
	frames := strings.Count(p.written(), cursorHome)
	testenv.Eventually(t, "more frames", func() bool { return strings.Count(p.written(), cursorHome) > frames+5 })
	if more := len(f.requests()) - asked; more > 3 {
		t.Errorf("%d requests while paused", more)
	}
	p.press(" ")
	before := len(f.requests())
	testenv.Eventually(t, "requests after the pause", func() bool { return len(f.requests()) > before+6 })
	if strings.Contains(p.frame(), "PAUSED") {
		t.Error("still PAUSED")
	}

	p.press("q")
	if status := p.ended(); status != 0 {
		t.Errorf("status %d after q", status)
	}
	p.restored()
}

func TestTopEndsWithASignal(t *testing.T) {
	for name, end := range map[string]struct {
		by   func(p *pty)
		want int
	}{
		"Ctrl-C":  {func(p *pty) { p.press("\x03") }, 128 + int(syscall.SIGINT)},
		"Ctrl-\\": {func(p *pty) { p.press("\x1c") }, 128 + int(syscall.SIGQUIT)},
		"SIGTERM": {func(p *pty) { p.cmd.Process.Signal(syscall.SIGTERM) }, 128 + int(syscall.SIGTERM)},
		"SIGHUP":  {func(p *pty) { p.cmd.Process.Signal(syscall.SIGHUP) }, 128 + int(syscall.SIGHUP)},
	} {
		t.Run(name, func(t *testing.T) {
			p := startTop(t, counting(t))
			end.by(p)
			if status := p.ended(); status != end.want {
				t.Errorf("status %d, want %d", status, end.want)
			}
			p.restored()
		})
	}
}

// TestTopStops: a process alone in its session is not stopped by Ctrl-Z, because
// nobody could end that; SIGSTOP stops any, and SIGCONT brings the screen back.
func TestTopStops(t *testing.T) {
	p := startTop(t, counting(t))
	frames := func() int { return strings.Count(p.written(), cursorHome) }
	before := frames()
	p.press("\x1a")
	testenv.Eventually(t, "top to go on", func() bool { return frames() > before+3 })
	if strings.Contains(p.written(), leaveScreen) {
		t.Error("the screen was given back for Ctrl-Z")
	}
	p.cmd.Process.Signal(syscall.SIGSTOP)
	p.cmd.Process.Signal(syscall.SIGCONT)
	testenv.Eventually(t, "the screen taken again", func() bool { return strings.Count(p.written(), enterScreen) == 2 })
	p.press("q")
	if status := p.ended(); status != 0 {
		t.Errorf("status %d", status)
	}
	p.restored()
}

func TestTopUnderAShellStopsAndGoesOn(t *testing.T) {
	sh := testenv.Path(t, "job control of mx-ctrl top", "bash")
	f := counting(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("set -m; %s top -s %s --interval 100ms; echo STOPPED $?; fg; echo ENDED $?", exe, f.socket)
	p := onTerminal(t, 100, 30, "shell", sh, script)
	p.wait("asked 3")
	p.press("\x1a")
	testenv.Eventually(t, "the shell, and top again", func() bool {
		_, after, ok := strings.Cut(p.written(), leaveScreen)
		return ok && strings.Contains(after, "STOPPED") && strings.Contains(after, enterScreen)
	})
	p.wait("asked ")
	p.press("q")
	p.ended()
	testenv.Eventually(t, "the shell's last word", func() bool { return strings.HasSuffix(p.written(), leaveScreen+"ENDED 0\n") })
	if got := p.mode(); got != cooked {
		t.Errorf("the terminal is left with %s", got)
	}
}

// TestTopWithoutAKeyboard: a screen that is not the controlling terminal has no
// keys, but is drawn on and given back.
func TestTopWithoutAKeyboard(t *testing.T) {
	f := counting(t)
	p := openPty(t, 100, 30)
	p.start(false, "top", "-s", f.socket, "--interval", "100ms")
	p.wait("asked 3")
	if got := p.mode(); got != cooked {
		t.Errorf("while it runs the terminal has %s", got)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if status := p.ended(); status != 128+int(syscall.SIGTERM) {
		t.Errorf("status %d", status)
	}
	p.restored()
}

func TestTopSaysThatTheMultiplexorIsGone(t *testing.T) {
	f := counting(t)
	p := startTop(t, f)
	away := filepath.Join(filepath.Dir(f.socket), "away")
	if err := os.Rename(f.socket, away); err != nil {
		t.Fatal(err)
	}
	p.wait("No answer for ")
	p.wait("connect: No such file or directory: Is multiplexor running?")
	p.wait("asked ") // the last state stays
	if err := os.Rename(away, f.socket); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the error to go", func() bool { return !strings.Contains(p.frame(), "No answer") })
	p.press("Q")
	if status := p.ended(); status != 0 {
		t.Errorf("status %d", status)
	}
	p.restored()
}

// TestRepliesOnATerminalAreSafe: what workers say cannot command the terminal of
// whoever asks, but under the original's name.
func TestRepliesOnATerminalAreSafe(t *testing.T) {
	f := answer(t, func(string) string { return "red%1B[31m é%C2%9B\n" })
	p := onTerminal(t, 80, 24, "-s", f.socket, "foo")
	p.ended()
	testenv.Eventually(t, "the reply", func() bool { return strings.Contains(p.written(), "red?[31m é?\n") })

	f = answer(t, func(string) string { return "\x1b[2J\n" })
	p = onTerminal(t, 80, 24, "-s", f.socket, "status")
	p.ended()
	testenv.Eventually(t, "the refusal", func() bool { return strings.Contains(p.written(), "ERROR ?[2J\n") })
}
