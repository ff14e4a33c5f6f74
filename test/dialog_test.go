package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestDialogs plays the dialogs of dialogs/*.txt against the real smtp-proxy in
// front of a Maildir. dialogs/README says what a line means.
func TestDialogs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			playDialog(t, file)
		})
	}
}

// dialog is one being played.
type dialog struct {
	t       *testing.T
	where   string // FILE:LINE of the present line
	args    []string
	files   map[string]string // made in the directory of settings
	filter  bool
	gateway *gateway
	conn    net.Conn
	in      *bufio.Reader
}

func playDialog(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := &dialog{t: t, files: make(map[string]string)}
	for i, line := range strings.Split(string(text), "\n") {
		d.where = fmt.Sprintf("%s:%d", file, i+1)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		d.play(line)
	}
}

func (d *dialog) fatalf(format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("%s: %s", d.where, fmt.Sprintf(format, args...))
}

// play does what a line says.
func (d *dialog) play(line string) {
	d.t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "set":
		key, value, _ := strings.Cut(rest, " ")
		d.args = append(d.args, "--"+key+"="+value)
	case "file":
		name, content, _ := strings.Cut(rest, " ")
		d.files[name] = content
	case "filter":
		d.filter = true
	case "C:":
		d.send(d.unescape(rest) + "\r\n")
	case "C:.":
		d.send(d.unescape(rest))
	case "S:":
		d.expect(rest)
	case "closed":
		d.expectEnd()
	case "hang-up":
		d.connect()
		d.conn.Close()
		d.conn = nil
	case "delivered":
		d.delivered(rest)
	default:
		d.fatalf("unknown line %q", line)
	}
}

// connect starts the server and connects, at the first line that needs it.
func (d *dialog) connect() {
	d.t.Helper()
	if d.gateway == nil {
		dir := testenv.ShortDir(d.t)
		for name, content := range d.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o644); err != nil {
				d.fatalf("%v", err)
			}
		}
		args := make([]string, len(d.args))
		for i, arg := range d.args {
			args[i] = strings.ReplaceAll(arg, "DIR/", dir+"/")
		}
		d.gateway = d.start(append(args, "--hostname", "gateway.example.net"))
	}
	if d.conn == nil {
		conn, err := testenv.Connect("tcp4", d.gateway.address())
		if err != nil {
			d.fatalf("%v", err)
		}
		d.t.Cleanup(func() { conn.Close() }) // before the server is to end
		d.conn, d.in = conn, bufio.NewReader(conn)
	}
}

func (d *dialog) start(args []string) *gateway {
	d.t.Helper()
	if d.filter {
		return startGateway(d.t, args...)
	}
	g := &gateway{dir: testenv.ShortDir(d.t), port: testenv.FreePort(d.t)}
	g.maildir = testenv.DaemonDir(d.t, filepath.Join(g.dir, "Maildir"))
	args = append([]string{"--maxloadavg", "0", "--smtp", "tcp:" + g.address()}, args...)
	if !strings.Contains(strings.Join(args, " "), "--upstream=") {
		args = append(args, "--upstream", "maildir:"+g.maildir)
	}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	g.proxy = testenv.Start(d.t, exec.Command(testenv.Binary(d.t, "smtp-proxy"), args...))
	testenv.Eventually(d.t, "smtp-proxy to listen", func() bool {
		conn, err := testenv.Connect("tcp4", g.address())
		if err == nil {
			conn.Close()
		}
		return err == nil || !g.proxy.Running()
	})
	return g
}

func (d *dialog) send(text string) {
	d.t.Helper()
	d.connect()
	// The server may have closed already; what it said is read later.
	testenv.Patient(d.conn)
	if _, err := io.WriteString(d.conn, text); err != nil {
		d.t.Logf("%s: %v", d.where, err)
	}
}

var escape = regexp.MustCompile(`\\(?:[rnt\\]|x[0-9A-Fa-f]{2}|\{\d+\}.)`)

// unescape reads \r \n \t \\ \xHH, and \{N}C for N times the byte C.
func (d *dialog) unescape(text string) string {
	return escape.ReplaceAllStringFunc(text, func(e string) string {
		switch e[1] {
		case 'r':
			return "\r"
		case 'n':
			return "\n"
		case 't':
			return "\t"
		case '{':
			n, _ := strconv.Atoi(e[2:strings.IndexByte(e, '}')])
			return strings.Repeat(e[len(e)-1:], n)
		case 'x':
			n, _ := strconv.ParseUint(e[2:], 16, 8)
			return string([]byte{byte(n)})
		}
		return e[1:]
	})
}

// matches says whether a line is as the pattern, in which "..." stands for
// anything.
func matches(pattern, line string) bool {
	parts := strings.Split(pattern, "...")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(line)
}

func (d *dialog) readLine() (string, error) {
	d.connect()
	testenv.Patient(d.conn)
	return d.in.ReadString('\n')
}

func (d *dialog) expect(pattern string) {
	d.t.Helper()
	line, err := d.readLine()
	if err != nil {
		d.fatalf("got %q, %v; want %q", line, err, pattern)
	}
	if got, ok := strings.CutSuffix(line, "\r\n"); !ok || !matches(pattern, got) {
		d.fatalf("got %q, want %q", line, pattern)
	}
}

func (d *dialog) expectEnd() {
	d.t.Helper()
	if line, err := d.readLine(); err == nil || os.IsTimeout(err) {
		d.fatalf("got %q, %v; want the end of the connection", line, err)
	}
	d.conn.Close()
	d.conn = nil
}

// delivered checks how many messages there are, or that one of them has a line
// like the pattern, or that none has.
func (d *dialog) delivered(rest string) {
	d.t.Helper()
	if d.conn != nil {
		// A session that has ended delivers nothing later.
		d.conn.Close()
		d.conn = nil
	}
	if n, err := strconv.Atoi(rest); err == nil {
		if got := len(d.gateway.delivered(d.t)); got != n {
			d.fatalf("%d messages delivered, want %d", got, n)
		}
		return
	}
	pattern, wanted := strings.CutPrefix(rest, "with ")
	if !wanted {
		pattern = strings.TrimPrefix(rest, "without ")
	}
	found := false
	for _, message := range d.gateway.delivered(d.t) {
		for _, line := range strings.Split(message, "\n") {
			found = found || matches(pattern, line)
		}
	}
	if found != wanted {
		d.fatalf("line %q found: %v, want %v, in\n%s", pattern, found, wanted, strings.Join(d.gateway.delivered(d.t), "\n=====\n"))
	}
}
