package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/internal/mxproto"
	"postern/internal/testenv"
)

// TestMUX_01_RequestLines: whatever is sent, or not sent, is answered or closed within
// its limits, and other requests go on.
func TestMUX_01_RequestLines(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1")
	for _, tt := range []struct{ name, send, want string }{
		{"1 MiB", strings.Repeat("x", 1<<20) + "\n", textTooLong},
		{"NUL", "pi\x00ng\n", "ok got <pi>\n"},
		{"only NUL", "\x00\n", "ok got <>\n"},
		{"CR", "ping\r\n", "PONG\n"},
		{"empty", "\n", "ok got <>\n"},
		{"unknown", "no such command\n", "ok got <no such command>\n"},
		{"8 bit", "\xff\xfe\n", "ok got <\xff\xfe>\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := askAt(t, r.path("s"), tt.send); got != tt.want {
				t.Errorf("got %.100q, want %.100q", got, tt.want)
			}
		})
	}
	r.end()
	r = startReal(t, "-c", "1", "-x", "1")
	t.Run("no line end", func(t *testing.T) {
		for _, text := range []string{"", "free", strings.Repeat("x", 1<<20)} {
			if got, err := requestAt(r.path("s"), text); got != "" || err != nil && !testenv.IsClosed(err) { // after --client-timeout
				t.Errorf("%.20q answered %q, %v", text, got, err)
			}
		}
	})
	t.Run("a byte now and then", func(t *testing.T) {
		conn := testenv.Dial(t, "unix", r.path("s"))
		testenv.Eventually(t, "the end of the time for a line, which bytes do not prolong", func() bool {
			_, err := io.WriteString(conn, "x")
			return err != nil
		})
	})
	r.end()
}

// TestMUX_01_FewDescriptors: connections that do nothing leave enough of them for workers.
func TestMUX_01_FewDescriptors(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	args := append([]string{"-c", `ulimit -n 150; exec "$0" "$@"`, testenv.Binary(t, "multiplexor")}, r.args("-D", "-x", "8", "-a", "u", "-c", "60")...)
	r.start(exec.Command("/bin/sh", args...))
	early := testenv.Dial(t, "unix", r.path("s")) // is there before the crowd
	io.WriteString(early, mxproto.Hello+"\n")
	answers := bufio.NewReader(early)
	if line, err := answers.ReadString('\n'); line != mxproto.HelloOK {
		t.Fatalf("%q, %v", line, err)
	}
	for _, name := range []string{"s", "u"} {
		for range 200 {
			testenv.Dial(t, "unix", r.path(name))
		}
	}
	testenv.Eventually(t, "the refusal of one too many", func() bool {
		conn, err := testenv.Connect("unix", r.path("s"))
		if err != nil {
			return false
		}
		defer conn.Close()
		testenv.Patient(conn)
		reply, _ := io.ReadAll(conn)
		return string(reply) == mxproto.TooMany
	})
	const ended = "ERR No response from worker: exited with status 0\n"
	for range 8 { // each time a new worker, with all its descriptors
		io.WriteString(early, "do exit 0\nping\n")
		for _, want := range []string{fmt.Sprintf("%d:%s,", len(ended), ended), "5:PONG\n,"} {
			if got, err := answers.ReadString(','); got != want {
				t.Fatalf("got %q, %v, want %q", got, err, want)
			}
		}
	}
	r.end()
}

// TestMUX_01_MoreWorkersThanDescriptors: as long as not all workers run there are enough
// for those that do and for their clients.
func TestMUX_01_MoreWorkersThanDescriptors(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	args := append([]string{"-c", `ulimit -n 150; exec "$0" "$@"`, testenv.Binary(t, "multiplexor")}, r.args("-D", "-x", "60", "-b", "60")...)
	r.start(exec.Command("/bin/sh", args...))
	var replies []func() string
	for range 10 {
		replies = append(replies, r.background("do sleep 1000"))
	}
	for _, reply := range replies {
		if got := reply(); got != "ok did\n" {
			t.Errorf("got %q", got)
		}
	}
	r.logged("60 workers and their clients may need more than the 150 descriptors")
	r.end()
}

// TestMUX_01_IdleConnections: 10 000 of them cost little, and requests go on.
func TestMUX_01_IdleConnections(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1")
	n := testenv.Connections(t, 10000)
	before := residentKB(t, r.proc.Pid())
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		conn := testenv.Dial(t, "unix", r.path("s"))
		conns = append(conns, conn)
		switch i % 4 {
		case 1:
			io.WriteString(conn, "half a li")
		case 2:
			io.WriteString(conn, mxproto.Hello+"\n")
		case 3:
			io.WriteString(conn, mxproto.Hello+"\nfr")
		}
	}
	r.want("ping", "PONG\n")
	r.want("free", "1\n")
	if grown := residentKB(t, r.proc.Pid()) - before; grown > 4*n {
		t.Errorf("%d KiB for %d connections", grown, n)
	}
	r.end()
}

// TestMUX_02_ScanOutsideTheSpool: a scan of a directory that is not below the spool is
// refused, however it is written.
func TestMUX_02_ScanOutsideTheSpool(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "2")
	for _, dir := range []string{"msg", "msg/inner", "other dir"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "/etc", "within": r.path("msg"), "msg/up": "../.."} {
		if err := os.Symlink(to, r.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/etc", "../../etc", "relative", "", r.dir, r.dir + "/", r.dir + "//msg", r.path("../d"), r.dir + "/msg/../../x", r.path("link"), r.path("link/ssl"),
		r.path("missing"), r.dir + "x", r.path("msg/up"), r.path("msg%00"), "%2Fetc", r.path("msg") + "\t/etc"} {
		r.want("scan q "+dir, textOutside)
	}
	// As mimedefang.pl reads a line, these are scans as well.
	for _, line := range []string{"scan", "scan q", "SCAN q /etc", "Scan q /etc", "%73can q /etc", " scan q /etc", "scan\tq\t/etc", "scan q\t/etc " + r.path("msg"), "scan  q /etc", "\x0bscan q /etc x"} {
		r.want(line, textOutside)
	}
	for _, dir := range []string{"msg", "msg/inner", "within", "other%20dir"} {
		r.want("scan q "+r.path(dir), "ok got <scan q "+r.path(dir)+">\n")
	}
	for _, line := range []string{"ping", "senderok <a> 1 h h /etc q", "s", "scanner q /etc", "%2 x"} {
		if got := r.ask(line); mxproto.IsError(got) {
			t.Errorf("%q, which is no scan, answered %q", line, got)
		}
	}
	// Over a persistent connection it is one answer like any other.
	conn := testenv.Dial(t, "unix", r.path("s"))
	frame := fmt.Sprintf("%d:%s,", len(textOutside), textOutside)
	io.WriteString(conn, "hello 2\nscan q /etc\nscan q "+r.path("link")+"\nping\n")
	want := mxproto.HelloOK + frame + frame + "5:PONG\n,"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	r.end()
}

// TestMUX_03_StatusSocket: it answers what only looks, and refuses the rest.
func TestMUX_03_StatusSocket(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-a", "u")
	sock := r.path("u")
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o777 {
		t.Errorf("mode %v, %v; want 0777", st.Mode(), err)
	}
	if st, err := os.Stat(r.path("s")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode of the main socket %v, %v; want 0700", st.Mode(), err)
	}
	for _, line := range []string{"help", "free", "version", "status", "workers", "slaves", "load", "load1 10", "hload", "histo", "msgs", "workerinfo 0", "tick", "foo_no_such_command"} {
		if got := askAt(t, sock, line+"\n"); got == "" || got == textPrivileged {
			t.Errorf("%s: %q", line, got)
		}
	}
	for _, line := range []string{"reread", "scan a b", "ping", "relayok x", "autoscale", "scan /x", "map a b", "REREAD", "tick 1", "", strings.Repeat("x", 20<<10), mxproto.Hello} {
		if got := askAt(t, sock, line+"\n"); got != textPrivileged {
			t.Errorf("%.20q: %q, want the refusal", line, got)
		}
	}
	r.end()
}

// TestMUX_04_SocketModesAndTakenPaths: modes, and what is done with a path that is taken. That a socket
// never has a wider mode is looked at where sockets are made, in package listen.
func TestMUX_04_SocketModesAndTakenPaths(t *testing.T) {
	t.Parallel()
	for _, group := range []bool{false, true} {
		want, more := os.FileMode(0o700), []string(nil)
		if group {
			want, more = 0o770, []string{"-G"}
		}
		r := startReal(t, append(more, "-a", "u", "-N", "m", "-O", "n", "--metrics", "x")...)
		for name, mode := range map[string]os.FileMode{"s": want, "m": want, "n": want, "x": want, "u": 0o777} {
			if st, err := os.Stat(r.path(name)); err != nil || st.Mode().Perm() != mode {
				t.Errorf("-G %v: mode of %s: %v, %v; want %v", group, name, st.Mode(), err, mode)
			}
		}
		// A live one is not taken over.
		_, stderr, status := testenv.Run(t, testenv.Binary(t, "multiplexor"), r.args("-D")...)
		if status == 0 || !strings.Contains(stderr, "Unable to create listening socket") {
			t.Errorf("a second instance: status %d, %s", status, stderr)
		}
		r.want("ping", "PONG\n")
		// One that a killed instance has left is replaced.
		r.proc.Stop(syscall.SIGKILL)
		r.proc.Wait()
		if _, err := os.Lstat(r.path("s")); err != nil {
			t.Fatal(err)
		}
		r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D")...))
		r.want("ping", "PONG\n")
		r.end()
		// What is no socket stays.
		r.write(r.path("s"), "a letter")
		_, stderr, status = testenv.Run(t, testenv.Binary(t, "multiplexor"), r.args("-D")...)
		if text, _ := os.ReadFile(r.path("s")); status == 0 || !strings.Contains(stderr, "no socket") || string(text) != "a letter" {
			t.Errorf("a file at the path: status %d, %s, and it holds %q", status, stderr, text)
		}
	}
}

// TestMUX_05_ListenersOfTheWholeNetwork need the name that says so, and a warning is
// logged.
func TestMUX_05_ListenersOfTheWholeNetwork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		form string
		warn bool
	}{{"inet:%d", false}, {"inet_any:%d", true}, {"tcp:0.0.0.0:%d", true}} {
		r := startReal(t, "-O", fmt.Sprintf(tt.form, testenv.FreePort(t)))
		r.want("ping", "PONG\n")
		r.end()
		if got := strings.Contains(r.proc.Output(), "reached from other machines"); got != tt.warn {
			t.Errorf("%s: warned %v, want %v:\n%s", tt.form, got, tt.warn, r.proc.Output())
		}
	}
}

// listener connects to the notification socket and reads the greeting.
func (r *real) listener(interest string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn := testenv.Dial(r.t, "unix", r.path("n"))
	r.t.Cleanup(func() { conn.Close() })
	testenv.Patient(conn)
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "*OK\n" {
		r.t.Fatalf("greeting %q, %v", line, err)
	}
	io.WriteString(conn, interest)
	return conn, in
}

// TestMUX_06_ListenerThatNeverReads holds up nobody, and others hear every Y and Z in
// order. What becomes of the slow one itself is in package notify.
func TestMUX_06_ListenerThatNeverReads(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-x", "1", "-O", "n")
	for range 10 {
		r.listener("?*\n")
	}
	conn, in := r.listener("?YZ+\n")
	// The extended form begins with the present state, so that nothing is missed.
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "*") || strings.Contains(line, " Y") {
			break
		}
	}
	requests := testenv.Load(2000, 5000)
	for range requests {
		r.want("ping", "PONG\n")
	}
	testenv.Patient(conn)
	edges := ""
	for len(edges) < 2*requests {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %d edges", err, len(edges))
		}
		if words := strings.Fields(line); len(words) == 3 && (words[2] == "Y" || words[2] == "Z") {
			edges += words[2]
		}
	}
	if strings.Contains(edges, "YY") || strings.Contains(edges, "ZZ") {
		t.Errorf("edges out of order: %.200s", edges)
	}
	r.end()
}

// TestMUX_07_ListenerLimit: one beyond it is told so.
func TestMUX_07_ListenerLimit(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-O", "n", "--notify-limit", "3")
	for range 3 {
		r.listener("")
	}
	conn := testenv.Dial(t, "unix", r.path("n"))
	if reply, err := io.ReadAll(conn); err != nil || string(reply) != "*ERR No free listening slots\n" {
		t.Errorf("one too many got %q, %v", reply, err)
	}
	r.want("ping", "PONG\n")
	r.end()
}

// TestMUX_08_InterestLines: the last line that begins with a question mark counts, with
// the capital letters in it; none is too long.
func TestMUX_08_InterestLines(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-O", "n", "-x", "1")
	for _, tt := range []struct{ name, send, first string }{
		{"a NUL in it", "?\x00YZ\n", "Z\n"},
		{"lower case", "?yz\n?F\n", "F 0\n"},
		{"no question mark", "YZ\n?F\n", "F 0\n"},
		{"the last one counts", "?*\n?F\n", "F 0\n"},
		{"of 1 MiB", "?" + strings.Repeat("q", 1<<20) + "\n?F\n", "F 0\n"},
		{"without an end", "?F\n?Z", "F 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, in := r.listener(tt.send)
			// The interest is not answered: ask until an event comes.
			line := ""
			testenv.Eventually(t, "an event", func() bool {
				r.want("ping", "PONG\n")
				testenv.Impatient(conn)
				more, err := in.ReadString('\n')
				line += more
				if err == nil && strings.HasPrefix(tt.send, "?*") && line[0] != 'F' {
					line = "" // of the interest before, which was in force for a moment
				}
				return err == nil && line != ""
			})
			if line != tt.first && line != "F 1\n" && line != "Y\n" { // the first request may have come in between
				t.Errorf("heard %q, want %q", line, tt.first)
			}
		})
	}
	r.end()
}

// TestMUX_09_ForgedEvents: a worker's text with a line feed is one S event; who wants
// only Z hears nothing of it.
func TestMUX_09_ForgedEvents(t *testing.T) {
	t.Parallel()
	r := startReal(t, "-Z", "-O", "n", "-x", "3")
	_, all := r.listener("?S+\n")
	conn, edges := r.listener("?Z+\n")
	for !strings.Contains(r.ask("do status 1:%20>%20step%0AZ%0A;sleep 50"), "ok did") {
		t.Fatal("no answer")
	}
	for {
		line, err := all.ReadString('\n')
		if err != nil {
			t.Fatalf("no event with the worker's text: %v", err)
		}
		if strings.HasSuffix(line, " S 0 1: > step Z \n") {
			break
		}
	}
	testenv.Impatient(conn)
	for {
		line, err := edges.ReadString('\n')
		if err != nil {
			break
		}
		if strings.Contains(line, " Z") && !strings.HasPrefix(line, "*") {
			t.Errorf("who wants Z heard %q", line)
		}
	}
	r.end()
}

// TestMUX_10_PeersOfTheWrongUser: who may connect to each kind of UNIX socket can be
// said, and all others are refused.
func TestMUX_10_PeersOfTheWrongUser(t *testing.T) {
	t.Parallel()
	me, other := strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getuid()+1)
	dial := func(r *real, name, text string) string {
		conn := testenv.Dial(t, "unix", r.path(name))
		io.WriteString(conn, text) // it may be refused before that
		b := make([]byte, 100)
		n, _ := conn.Read(b)
		return string(b[:n])
	}
	for _, tt := range []struct {
		name, settings string
		want           [4]string // of a request, a lookup, a status request and a listener
	}{
		{"requests", "--request-users=" + other, [4]string{mxproto.NotAllowed, "", "2\n", "*OK\n"}},
		{"status", "--status-users=" + other, [4]string{"PONG\n", "16:ok got <map a b>,", mxproto.NotAllowed, "*OK\n"}},
		{"listeners", "--notify-users=" + other, [4]string{"PONG\n", "16:ok got <map a b>,", "2\n", "*ERR Not allowed\n"}},
		{"one of several", "--request-users=nobody --request-users=" + me + " --status-users=" + me, [4]string{"PONG\n", "16:ok got <map a b>,", "2\n", "*OK\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startReal(t, append([]string{"-N", "m", "-a", "u", "-O", "n"}, strings.Fields(tt.settings)...)...)
			got := [4]string{dial(r, "s", "ping\n"), dial(r, "m", "3:a b,"), dial(r, "u", "free\n"), dial(r, "n", "")}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			r.end()
		})
	}
	t.Run("no such user", func(t *testing.T) {
		r := prepare(t)
		_, stderr, status := testenv.Run(t, testenv.Binary(t, "multiplexor"), r.args("-D", "--request-users=no-such-user")...)
		if status != 1 || !strings.Contains(stderr, `request-users "no-such-user": no such user`) {
			t.Errorf("status %d, %s", status, stderr)
		}
	})
}
