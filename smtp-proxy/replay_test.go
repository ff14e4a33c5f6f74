package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

// runReplay runs the command with a multiplexor.
func runReplay(t *testing.T, m *fakeMultiplexor, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := new(program)
	p.settings = *parseSettings(t, append([]string{"--multiplexor", m.spec, "--spool", m.spool, "replay"}, args...)...)
	var out, errs strings.Builder
	status = p.replay(&out, &errs)
	return status, out.String(), errs.String()
}

// keepMessages has a proxy keep messages, and returns where.
func keepMessages(t *testing.T, results string, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kept")
	m := startMultiplexor(t, scanWith(t, results))
	p := startProxy(t, m.args(behind(testenv.StartBackend(t)), "--keep-sample=100%", "--keep-dir="+dir)...)
	c := greeted(t, p.addr)
	for range n {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("")
	}
	testenv.Eventually(t, "the messages are kept", func() bool { return p.kept.Counts().Kept.Load() == uint64(n) })
	return dir
}

// contents returns all that is in a directory.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		all.WriteString(path + "\n")
		if err == nil && e.Type().IsRegular() {
			all.WriteString(readFile(t, path))
		}
		return err
	}))
	return all.String()
}

// TestReplay: kept messages are scanned again, as copies, and what the filter wants is compared with the last time.
func TestReplay(t *testing.T) {
	dir := keepMessages(t, "HX-A one\nF\n", 5)
	before := contents(t, dir)
	for _, tt := range []struct {
		name, results string
		args          []string
		status        int
		lines, sum    string // lines: pattern of what is said of each message
	}{
		{"same", "HX-A  one \nF\n", nil, 0, "", "messages: 5, same: 5, differ: 0, nothing to compare with: 0, failed: 0\n"},
		{"differs", "HX-A two\nF\n", []string{"--parallel=2"}, 1, `(\S+/kept/\w{16}: differs: field x-a: H0 two, not H0 one\n){5}`, "messages: 5, same: 0, differ: 5, nothing to compare with: 0, failed: 0\n"},
		{"may differ", "HX-A two\nF\n", []string{"--ignore=X-A"}, 0, "", "messages: 5, same: 5, differ: 0, nothing to compare with: 0, failed: 0\n"},
		{"quiet", "T\nF\n", []string{"--quiet"}, 1, "", "messages: 5, same: 0, differ: 5, nothing to compare with: 0, failed: 0\n"},
		{"failed", "", nil, 75, `(\S+/kept/\w{16}: failed: .*\n){5}`, "messages: 5, same: 0, differ: 0, nothing to compare with: 0, failed: 5\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := startMultiplexor(t, scanWith(t, tt.results))
			status, out, errs := runReplay(t, m, append(tt.args, dir)...)
			pattern := `^` + tt.lines + regexp.QuoteMeta(tt.sum)
			if tt.status != 75 {
				pattern += `time: \S+, p50: \S+, p99: \S+, slowest: \S+ \(\S+/kept/\w{16}\)\n`
			}
			if !regexp.MustCompile(pattern+"$").MatchString(out) || status != tt.status || errs != "" {
				t.Errorf("status %d, want %d\n%s%s", status, tt.status, out, errs)
			}
			if left, err := os.ReadDir(m.spool); err != nil || len(left) > 0 {
				t.Errorf("left in the spool: %v, %v", left, err)
			}
		})
	}
	if contents(t, dir) != before {
		t.Error("what was kept is not as it was")
	}
}

// TestReplayFiles: messages in files are put to the filter as if they had come from a client.
func TestReplayFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.eml")
	writeFile(t, file, "Subject: test\n\nText\r\n\nend\x1b")
	var asked atomic.Int32
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			asked.Add(1)
			if got := readFile(t, filepath.Join(words[2], "INPUTMSG")); got != "Subject: test\n\nText\n\nend\x1b" {
				t.Errorf("INPUTMSG is %q", got)
			}
			commands := readFile(t, filepath.Join(words[2], "COMMANDS"))
			for _, want := range []string{"\nS<a@b.example>\n", "\nI192.0.2.1\n", "\nEname.example\n", "\nR<c@d.example> "} {
				if !strings.Contains(commands, want) {
					t.Errorf("no %q in %q", want, commands)
				}
			}
		}
		return scanWith(t, "B554 5.7.1 No%20way\nF\n")(words)
	})
	status, out, errs := runReplay(t, m, "--client=192.0.2.1", "--helo=name.example", "--from=a@b.example", "--to=c@d.example", file)
	if status != 0 || errs != "" || asked.Load() != 1 ||
		!strings.HasPrefix(out, file+": reject 554 5.7.1 No way\nmessages: 1, same: 0, differ: 0, nothing to compare with: 1, failed: 0\n") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// TestReplayErrors: what cannot be replayed at all is said first.
func TestReplayErrors(t *testing.T) {
	m := startMultiplexor(t, scanWith(t, "F\n"))
	file, empty := filepath.Join(t.TempDir(), "x.eml"), t.TempDir()
	writeFile(t, file, "Subject: test\n\n")
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{filepath.Join(empty, "none")}, 64, "no such file"},
		{[]string{empty}, 64, "there is no COMMANDS in it"},
		{[]string{"--parallel=0", file}, 64, "--parallel"},
		{[]string{"--to=<>", file}, 64, "--to"},
		{[]string{"--from=a b", file}, 64, "--from"},
		{[]string{"--multiplexor=" + filepath.Join(empty, "socket"), file}, 75, "ask the multiplexor"},
		{[]string{"--spool=" + filepath.Join(empty, "spool"), file}, 78, "spool"},
		{[]string{"--multiplexor=", file}, 78, "multiplexor"},
	} {
		if status, out, errs := runReplay(t, m, tt.args...); status != tt.status || out != "" || !strings.Contains(errs, tt.want) {
			t.Errorf("%q: status %d, want %d, %q\n%s%s", tt.args, status, tt.status, tt.want, out, errs)
		}
	}
}
