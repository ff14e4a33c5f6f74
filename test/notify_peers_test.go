package test

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// A notifyPool is a multiplexor with a single worker that can be held busy: ours
// or Debian's.
type notifyPool struct {
	t      *testing.T
	dir    string
	notify string // specification of the notification socket
	proc   *testenv.Process
}

// notifyWorker is a worker that answers every request at once, but "hold FILE"
// only when FILE is gone.
const notifyWorker = `#!/bin/sh
while read -r command file; do
	if [ "$command" = hold ]; then
		while [ -e "$file" ]; do sleep 0.01; done
	fi
	echo ok
done
`

// startNotifyPool starts the multiplexor of that name, "multiplexor" for ours,
// with notification specification spec, or a UNIX socket if it is empty.
func startNotifyPool(t *testing.T, program, spec string, more ...string) *notifyPool {
	t.Helper()
	p := &notifyPool{t: t, dir: testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "run")), notify: spec}
	if spec == "" {
		p.notify = filepath.Join(p.dir, "mx-notify.sock")
	}
	worker := filepath.Join(filepath.Dir(p.dir), "worker")
	if err := os.WriteFile(worker, []byte(notifyWorker), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-D", "-m", "1", "-x", "1", "-z", p.dir, "-f", worker, "-s", p.socket(), "-O", p.notify}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "-U", account)
	}
	p.proc = testenv.Start(t, exec.Command(program, append(args, more...)...))
	testenv.Eventually(t, "the multiplexor's answer", func() bool {
		reply, err := p.ask("free\n")
		return err == nil && reply == "1\n"
	})
	return p
}

func (p *notifyPool) socket() string { return filepath.Join(p.dir, "mx.sock") }

// ask sends one request and returns the whole reply.
func (p *notifyPool) ask(line string) (string, error) {
	conn, err := testenv.Connect("unix", p.socket())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	testenv.Patient(conn)
	if _, err := io.WriteString(conn, line); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(conn)
	return string(reply), err
}

// hold keeps the worker busy until the function it returns is called.
func (p *notifyPool) hold() (release func()) {
	p.t.Helper()
	file := filepath.Join(p.dir, "hold")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		reply, _ := p.ask("hold " + file + "\n")
		done <- reply
	}()
	testenv.Eventually(p.t, "a busy worker", func() bool {
		reply, err := p.ask("free\n")
		return err == nil && reply == "0\n"
	})
	return func() {
		p.t.Helper()
		if err := os.Remove(file); err != nil {
			p.t.Fatal(err)
		}
		if reply := testenv.Receive(p.t, "the reply to hold", done); reply != "ok\n" {
			p.t.Errorf("hold: reply %q", reply)
		}
	}
}

// untilHeard makes the pool busy and free until a listener, which may need a
// while to connect, has shown both.
func (p *notifyPool) untilHeard(output func() string, busy, free string) {
	p.t.Helper()
	testenv.Eventually(p.t, "what the listener says", func() bool {
		p.hold()()
		out := output()
		i := strings.Index(out, busy)
		return i >= 0 && strings.Contains(out[i:], free)
	})
}

// multiplexors are ours and, where it is installed, Debian's.
func multiplexors(t *testing.T, test func(t *testing.T, program string)) {
	t.Run("postern", func(t *testing.T) { test(t, testenv.Binary(t, "multiplexor")) })
	t.Run("debian", func(t *testing.T) {
		program := testenv.Path(t, "event tools with mimedefang-multiplexor", "mimedefang-multiplexor")
		if os.Geteuid() != 0 {
			testenv.LeaveOut(t, "event tools with mimedefang-multiplexor", "it wants to be started as root")
		}
		test(t, program)
	})
}

// TestNotifyPerlScript runs the listener that the manual page of MIMEDefang
// offers for copying, with nothing changed but the port and the firewall
// command.
func TestNotifyPerlScript(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "the Perl script of mimedefang-notify(7)", "perl")
	script := perlScript(t)
	multiplexors(t, func(t *testing.T, program string) {
		port := testenv.FreePort(t)
		p := startNotifyPool(t, program, fmt.Sprintf("inet:%d", port))
		dir := testenv.ShortDir(t)
		firewall := filepath.Join(dir, "firewall")
		if err := os.WriteFile(firewall, []byte("#!/bin/sh\necho \"$@\" >>"+dir+"/rules\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(script, "'4567'", fmt.Sprintf("'%d'", port))
		text = strings.ReplaceAll(text, "/sbin/iptables", firewall)
		file := filepath.Join(dir, "listener.pl")
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		listener := testenv.Start(t, exec.Command("perl", "-w", file))
		p.untilHeard(listener.Output, "No free workers!\n", "Some free workers.\n")
		rules := func() string {
			text, _ := os.ReadFile(filepath.Join(dir, "rules"))
			return string(text)
		}
		const shut, open = "-A smtp_connect -j REJECT\n", "-F smtp_connect\n"
		testenv.Eventually(t, "the firewall commands", func() bool { return strings.Contains(rules(), shut+open) })
		p.proc.Stop(syscall.SIGTERM)
		if status := listener.Wait(); status != 0 {
			t.Errorf("the script ends with status %d", status)
		}
		if !strings.HasSuffix(rules(), open) {
			t.Errorf("rules at the end: %q", rules())
		}
	})
}

// perlScript takes the script out of the installed manual page.
func perlScript(t *testing.T) string {
	t.Helper()
	const page = "/usr/share/man/man7/mimedefang-notify.7.gz"
	f, err := os.Open(page)
	if err != nil {
		testenv.LeaveOut(t, "the Perl script of mimedefang-notify(7)", "no "+page)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	start, end := strings.Index(string(text), "#!/usr/bin/perl"), strings.LastIndex(string(text), "main();\n")
	if start < 0 || end < start {
		t.Fatalf("%s has no script", page)
	}
	script := strings.ReplaceAll(string(text[start:end]), `\\`, `\`) + "main();\n"
	for _, must := range []string{"'4567'", "/sbin/iptables", `"?YZ\n"`} {
		if !strings.Contains(script, must) {
			t.Fatalf("no %s in the script of %s:\n%s", must, page, script)
		}
	}
	return script
}

// TestNotifyNetcat has netcat listen. One that has closed its sending side gets
// its messages from ours only.
func TestNotifyNetcat(t *testing.T) {
	t.Parallel()
	nc := testenv.Path(t, "netcat as a listener", "nc")
	listen := func(t *testing.T, p *notifyPool, flags, lines string) *testenv.Process {
		cmd := exec.Command("sh", "-c", `(printf "$3"; sleep 60) | exec "$0" $1 "$2"`, nc, flags, p.notify, lines)
		if strings.Contains(flags, "N") {
			cmd = exec.Command("sh", "-c", `printf "$3" | exec "$0" $1 "$2"`, nc, flags, p.notify, lines)
		}
		return testenv.Start(t, cmd)
	}
	multiplexors(t, func(t *testing.T, program string) {
		p := startNotifyPool(t, program, "")
		l := listen(t, p, "-U", `?FYZ\n`)
		p.untilHeard(l.Output, "*OK\n", "F 0\nZ\nF 1\nY\n")
	})
	t.Run("half-closed", func(t *testing.T) {
		p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
		l := listen(t, p, "-NU", `?FYZ\n`)
		p.untilHeard(l.Output, "*OK\n", "F 0\nZ\nF 1\nY\n")
	})
	t.Run("two lines in a packet", func(t *testing.T) {
		p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
		l := listen(t, p, "-U", `?F\n?YZ\n`)
		p.untilHeard(l.Output, "*OK\n", "Z\nY\nZ\n")
		// Something may happen after the first line was read and before the second.
		out := l.Output()
		if strings.Contains(out[strings.IndexAny(out, "YZ"):], "F ") {
			t.Errorf("the first line counts: %q", out)
		}
	})
}

// pythonListener prints each message with what it has read before it.
const pythonListener = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw", newline="\n")
assert f.readline() == "*OK\n"
f.write("?*\n"); f.flush()
for line in f:
    print("got", line, end="", flush=True)
print("end", flush=True)
`

func TestNotifyPython(t *testing.T) {
	t.Parallel()
	python := testenv.Path(t, "Python as a listener", "python3")
	multiplexors(t, func(t *testing.T, program string) {
		p := startNotifyPool(t, program, "")
		l := testenv.Start(t, exec.Command(python, "-c", pythonListener, p.notify))
		hold := filepath.Join(p.dir, "hold")
		p.untilHeard(l.Output, "got S 0 StateChange Idle -> Busy\ngot F 0\ngot Z\ngot S 0 hold "+hold+"\n",
			"got S 0 StateChange Busy -> Idle\ngot F 1\ngot Y\n")
		if reply, err := p.ask("reread\n"); err != nil {
			t.Errorf("reread: %q, %v", reply, err)
		}
		testenv.Eventually(t, "R", func() bool { return strings.Contains(l.Output(), "got R\n") })
		p.proc.Stop(syscall.SIGTERM)
		testenv.Eventually(t, "the end", func() bool { return strings.HasSuffix(l.Output(), "end\n") })
	})
}

// TestNotifyTools runs the three tools on both multiplexors; the original does
// not know the extended form.
func TestNotifyTools(t *testing.T) {
	t.Parallel()
	cat, wait, run := testenv.Binary(t, "notify-cat"), testenv.Binary(t, "notify-wait"), testenv.Binary(t, "notify-exec")
	multiplexors(t, func(t *testing.T, program string) {
		p := startNotifyPool(t, program, "")
		extended := !strings.Contains(program, "mimedefang")

		raw := testenv.Start(t, exec.Command(cat, "--raw", "-t", "YZF", p.notify))
		p.untilHeard(raw.Output, "F 0\nZ\n", "F 1\nY\n")
		words := testenv.Start(t, exec.Command(cat, p.notify))
		p.untilHeard(words.Output, " Z none is free\n", " Y some are free\n")
		json := testenv.Start(t, exec.Command(cat, "-f", "json", "-t", "S", "mx="+p.notify))
		p.untilHeard(json.Output, `"type":"S","text":"0 StateChange Idle -> Busy"`, `"worker":0`)

		marks := testenv.ShortDir(t)
		exe := testenv.Start(t, exec.Command(run, "--on", "YZ", "sh", "-c", `echo "$1 $POSTERN_FREE" >>"$0"`, marks+"/log", "{type}", ";",
			"--undo", "sh", "-c", `echo undo >>"$0"`, marks+"/log", ";", p.notify))
		log := func() string { text, _ := os.ReadFile(marks + "/log"); return string(text) }
		p.untilHeard(log, "Z 0\n", "Y 1\n")

		stdout, stderr, status := testenv.Run(t, cat, "--once", "--raw", "-t", "FY", p.notify)
		if extended && (status != 0 || stdout != "F 1\nY\n") || !extended && status != 76 {
			t.Errorf("--once: status %d, %q %q", status, stdout, stderr)
		}

		waiting := testenv.Start(t, exec.Command(wait, "no-workers", p.notify, "--timeout", "3m"))
		testenv.Eventually(t, "notify-wait no-workers", func() bool {
			release := p.hold()
			defer release()
			return !waiting.Running()
		})
		if status := waiting.Wait(); status != 0 {
			t.Errorf("notify-wait no-workers: status %d, %s", status, waiting.Output())
		}
		if _, stderr, status := testenv.Run(t, wait, "free>5", p.notify, "--timeout", "100ms"); status != 124 {
			t.Errorf("notify-wait 'free>5': status %d, %s", status, stderr)
		}

		exe.Stop(syscall.SIGTERM)
		if status := exe.Wait(); status != 0 || !strings.HasSuffix(log(), "undo\n") {
			t.Errorf("notify-exec ends with status %d, log %q", status, log())
		}
		p.proc.Stop(syscall.SIGTERM)
		testenv.Eventually(t, "the loss is told", func() bool {
			return strings.Contains(raw.Output(), "notify-cat: lost mx: ")
		})
		if !raw.Running() {
			t.Error("notify-cat has ended because the multiplexor did")
		}
	})
}

// TestNotifyCatPipe is EVT-06: nobody reads notify-cat's output any more.
func TestNotifyCatPipe(t *testing.T) {
	t.Parallel()
	p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
	cmd := exec.Command("sh", "-c", `{ "$0" --raw -t YZ "$1"; echo "status $?" >&2; } | head -1`, testenv.Binary(t, "notify-cat"), p.notify)
	l := testenv.Start(t, cmd)
	testenv.Eventually(t, "the end", func() bool {
		p.hold()()
		return !l.Running()
	})
	if out := l.Output(); !strings.Contains(out, "status 141\n") || strings.Contains(out, "error") {
		t.Errorf("not ended quietly by SIGPIPE: %q", out)
	}
}

// TestNotifyAccess is MUX-07 and MUX-10 with the real multiplexor: places for
// listeners and who may have one are settings.
func TestNotifyAccess(t *testing.T) {
	t.Parallel()
	cat := testenv.Binary(t, "notify-cat")
	refused := func(t *testing.T, p *notifyPool, why string) {
		t.Helper()
		_, stderr, status := testenv.Run(t, cat, "--once", "--timeout=3m", p.notify)
		if status != 2 || !strings.Contains(stderr, why) {
			t.Errorf("status %d, %q; want 2 and %q", status, stderr, why)
		}
	}
	t.Run("limit", func(t *testing.T) {
		p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "", "--notify-limit", "1")
		first := testenv.Start(t, exec.Command(cat, "--raw", "-t", "YZ", p.notify))
		p.untilHeard(first.Output, "Z\n", "Y\n")
		refused(t, p, "No free listening slots")
	})
	t.Run("users", func(t *testing.T) {
		other := fmt.Sprint(os.Getuid() + 12345)
		p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "", "--notify-users", other)
		refused(t, p, "Not allowed")
		p = startNotifyPool(t, testenv.Binary(t, "multiplexor"), "", "--notify-users", other, "--notify-users", fmt.Sprint(os.Getuid()))
		if stdout, stderr, status := testenv.Run(t, cat, "--once", "--raw", "-t", "F", p.notify); status != 0 || stdout != "F 1\n" {
			t.Errorf("status %d, %q, %q", status, stdout, stderr)
		}
	})
}
