package statfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/safedir"
	"postern/internal/testenv"
)

var example = Fields{
	Type: "smtp-proxy", Program: "smtp-proxy", PID: 713, Start: time.Unix(1700000000, 0),
	Local: netip.MustParseAddrPort("192.0.2.25:25"), Client: netip.MustParseAddr("198.51.100.7"),
	ClientName: "mail.example.net", Server: "mx.example.com:25", Status: "RCPT <a b@c>",
}

func TestAppend(t *testing.T) {
	changed := func(change func(*Fields)) Fields { f := example; change(&f); return f }
	const tail = " smtp-proxy 713 1700000000 192.0.2.25:25 198.51.100.7 mail.example.net mx.example.com:25 -:0 - RCPT <a b@c>\n"
	tests := []struct {
		name   string
		fields Fields
		want   string
	}{
		{"example", example, "smtp-proxy" + tail},
		{"nothing known", Fields{}, "- - 0 - -:0 - - - -:0 - -\n"},
		{"IPv6", changed(func(f *Fields) {
			f.Local, f.Client = netip.MustParseAddrPort("[2001:db8::1]:25"), netip.MustParseAddr("fe80::1%eth0")
		}), "smtp-proxy smtp-proxy 713 1700000000 [2001:db8::1]:25 fe80::1 mail.example.net mx.example.com:25 -:0 - RCPT <a b@c>\n"},
		{"mapped", changed(func(f *Fields) {
			f.Local, f.Client = netip.MustParseAddrPort("[::ffff:192.0.2.25]:25"), netip.MustParseAddr("::ffff:198.51.100.7")
		}), "smtp-proxy" + tail},
		{"hostile", changed(func(f *Fields) { f.ClientName, f.User, f.Status = "a b\nc", "%\x7f\xff", " MAIL <a\r\nb>\x1b[2J " }),
			"smtp-proxy smtp-proxy 713 1700000000 192.0.2.25:25 198.51.100.7 a%20b%0Ac mx.example.com:25 -:0 %25%7F%FF MAIL <a%0D%0Ab>%1B[2J\n"},
		{"long", changed(func(f *Fields) { f.Status = strings.Repeat("x", 5000) }),
			"smtp-proxy" + strings.Replace(tail, "RCPT <a b@c>", strings.Repeat("x", maxField), 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := string(tt.fields.Append(nil))
			if got != tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
			if n := strings.Count(got, " "); n < 10 || strings.Count(got, "\n") != 1 {
				t.Errorf("%q: %d spaces", got, n)
			}
		})
	}
}

func TestParse(t *testing.T) {
	got, err := Parse(string(example.Append(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, bad := range []string{"", "a b c", "a b x 1 - - - - - - s", "a b 1 x - - - - - - s"} {
		if f, err := Parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, f)
		}
	}
}

func TestCommand(t *testing.T) {
	tests := []struct{ line, want string }{
		{"MAIL FROM:<a@b>\r\n", "MAIL FROM:<a@b>"},
		{"AUTH PLAIN AGEAYg==", "AUTH PLAIN"},
		{"auth  LOGIN  x", "AUTH LOGIN"},
		{"AUTH", "AUTH"},
		{"PASS secret words", "PASS ****"},
		{" pass x", "PASS ****"},
		{"PASS", "PASS ****"},
		{"APOP bob c4c9334bac560ecc979e58001b3e22fb", "APOP bob"},
		{"QUIT", "QUIT"},
	}
	for _, tt := range tests {
		if got := Command(tt.line); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir, "prog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	one, err := d.New(example)
	if err != nil {
		t.Fatal(err)
	}
	two, err := d.New(Fields{})
	if err != nil {
		t.Fatal(err)
	}
	single, err := d.NewSingle(Fields{})
	if err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	want := fmt.Sprintf("prog-%05d-1.stat prog-%05d-2.stat prog-%05d.stat", pid, pid, pid)
	if got := names(t, dir); got != want {
		t.Errorf("files %q, want %q", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, one.Name()))
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
	for _, status := range []string{"a long status with many words", "QUIT", ""} {
		if err := one.Update(status); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, one.Name()))
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(string(data))
		if err != nil || f.Status != status || f.PID != pid || f.Program != "prog" || strings.Count(string(data), "\n") != 1 {
			t.Errorf("after %q: %q, %v", status, data, err)
		}
	}
	if err := one.Change(func(f *Fields) { f.User = "bob" }); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, one.Name())); !strings.Contains(string(data), " bob -\n") {
		t.Errorf("after Change: %q", data)
	}
	one.Remove()
	one.Remove()
	two.Remove()
	single.Remove()
	if got := names(t, dir); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	f, err := open(t, dir).New(Fields{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(1000) {
		if err := f.Progress("DATA", n+1); err != nil {
			t.Fatal(err)
		}
	}
	data, _ := os.ReadFile(filepath.Join(dir, f.Name()))
	if got, err := Parse(string(data)); err != nil || got.Status != "DATA 1" {
		t.Errorf("status %q, %v; want the first only", got.Status, err)
	}
	if err := f.Update("FILTER"); err != nil {
		t.Fatal(err)
	}
}

func TestNil(t *testing.T) {
	var d *Dir
	f, err := d.New(Fields{})
	if f != nil || err != nil {
		t.Fatalf("%v, %v", f, err)
	}
	if err := errors.Join(f.Update("x"), f.Progress("x", 1), f.Change(nil), d.Close()); err != nil || f.Name() != "" {
		t.Error(err)
	}
	f.Remove()
}

// FS-07: what lies at the name of a status file is left alone.
func TestForeignFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	next := fmt.Sprintf("prog-%05d-1.stat", os.Getpid())
	kinds := map[string]func(string) error{
		"link":      func(p string) error { return os.Symlink(outside, p) },
		"dangling":  func(p string) error { return os.Symlink("nowhere", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
	}
	for name, make := range kinds {
		for _, prefix := range []string{"", tempPrefix} {
			t.Run(prefix+name, func(t *testing.T) {
				dir := t.TempDir()
				d := open(t, dir)
				path := filepath.Join(dir, prefix+next)
				if err := make(path); err != nil {
					t.Fatal(err)
				}
				before, err := os.Lstat(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := d.New(Fields{})
				if (err != nil) != (prefix == "") {
					t.Errorf("New: %v", err)
				}
				f.Remove()
				after, err := os.Lstat(path)
				if err != nil || !os.SameFile(before, after) {
					t.Errorf("the foreign file is gone: %v", err)
				}
				if data, err := os.ReadFile(outside); err != nil || string(data) != "x" {
					t.Errorf("target: %q, %v", data, err)
				}
			})
		}
	}
}

// FS-07.
func TestOwnStaleFileIsReplaced(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	next := fmt.Sprintf("prog-%05d-1.stat", os.Getpid())
	if err := errors.Join(os.WriteFile(filepath.Join(dir, next), []byte(strings.Repeat("old ", 100)), 0o600),
		os.WriteFile(filepath.Join(dir, tempPrefix+next), []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.New(Fields{Status: "x"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, next))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := Parse(string(data)); err != nil || f.Status != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestLeftovers(t *testing.T) {
	// A process that has just ended gives a number that is not in use.
	p := testenv.Start(t, exec.Command("true"))
	p.Wait()
	dead := p.Pid()
	dir := t.TempDir()
	remove := []string{fmt.Sprintf("prog-%05d.stat", dead), fmt.Sprintf("prog-%05d-12.stat", dead), fmt.Sprintf(".prog-%05d-3.stat", dead)}
	stay := []string{fmt.Sprintf("prog-%05d-1.stat", os.Getppid()), fmt.Sprintf("other-%05d.stat", dead), "prog-.stat",
		fmt.Sprintf("prog-%05d-x.stat", dead), "prog-00012", "prog-7.stat"}
	for _, n := range append(remove, stay...) {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := fmt.Sprintf("prog-%05d-9.stat", dead)
	if err := os.Symlink("nowhere", filepath.Join(dir, link)); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	for _, n := range remove {
		if _, err := os.Lstat(filepath.Join(dir, n)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it removed", n, err)
		}
	}
	for _, n := range append(stay, link) {
		if _, err := os.Lstat(filepath.Join(dir, n)); err != nil {
			t.Error(err)
		}
	}
}

// FS-06.
func TestOpenInsecure(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "prog"); !errors.Is(err, safedir.ErrInsecure) {
		t.Errorf("world-writable: %v", err)
	}
	if _, err := Open(t.TempDir(), "../prog"); err == nil {
		t.Error("a program name with a slash was accepted")
	}
}

// TestBrokenDirectory removes the directory while sessions run: they get errors, the log one line for each change.
// FS-08.
func TestBrokenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := open(t, dir)
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	f, err := d.New(Fields{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := f.Update(fmt.Sprint("x", i)); err == nil {
			t.Fatal("update in a removed directory succeeded")
		}
	}
	if got := strings.Count(log.String(), "level=WARN"); got != 1 {
		t.Errorf("%d warnings, want 1:\n%s", got, &log)
	}
}

func FuzzFields(f *testing.F) {
	f.Add("name", "server:25", "user", "RCPT <a b@c>")
	f.Add("-", "\n", "%", " ")
	f.Fuzz(func(t *testing.T, name, server, user, status string) {
		in := Fields{Type: "t", Program: "p", PID: 1, ClientName: name, Server: server, User: user, Status: status}
		line := string(in.Append(nil))
		if strings.Count(line, "\n") != 1 || strings.ContainsAny(line, "\r\x00\x1b\x7f") {
			t.Fatalf("%q is not one clean line", line)
		}
		out, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		want := func(s string) string {
			if s = s[:min(len(s), maxField)]; s == "-" {
				return ""
			}
			return s
		}
		if out.ClientName != want(name) || out.Server != want(server) || out.User != want(user) || out.Status != want(strings.Trim(status, " ")) {
			t.Errorf("%q reads back as %+v", line, out)
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	d, err := Open(b.TempDir(), "prog")
	if err != nil {
		b.Fatal(err)
	}
	f, err := d.New(example)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := f.Update([]string{"MAIL <a@b>", "RCPT <c@d>"}[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLeftoversOfOurOwnID: a process that has the id of one that was killed, as the first of a container always has,
// removes what that one left.
func TestLeftoversOfOurOwnID(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, fmt.Sprintf("prog-%05d-7.stat", os.Getpid()))
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir, "prog")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}
