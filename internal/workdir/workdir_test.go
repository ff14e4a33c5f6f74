package workdir

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/internal/safedir"
	"postern/internal/testenv"
)

// newSpool makes a spool in a temporary directory.
func newSpool(t *testing.T) *Spool {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Spool{Dir: dir}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newDir(t *testing.T, s *Spool) *Dir {
	t.Helper()
	d, err := s.Create(NewQueueID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Remove() })
	return d
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// finish writes message in pieces of the given size (0 = all at once) and returns the directory.
func finish(t *testing.T, s *Spool, message string, size int) *Dir {
	t.Helper()
	d := newDir(t, s)
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	p := []byte(message)
	for len(p) > 0 {
		n := len(p)
		if size > 0 {
			n = min(size, n)
		}
		if _, err := c.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestCaptured writes the directory of a message that the real milter and Postfix handled, and compares each file.
func TestCaptured(t *testing.T) {
	d := newDir(t, newSpool(t))
	err := d.Envelope(Envelope{
		ID: "ivED000", Sender: "<alice@client.example>", SenderArgs: []string{"SIZE=812", "BODY=8BITMIME", "ENVID=QQ314"},
		Macros: [][2]string{{"_", "mail.client.example [192.0.2.7]"}, {"auth_authen", "alice"}, {"auth_type", "XCLIENT"},
			{"cert_issuer", "client.test.invalid"}, {"cert_subject", "client.test.invalid"},
			{"cipher", "TLS_AES_256_GCM_SHA384"}, {"cipher_bits", "256"}, {"daemon_name", "mx.test.invalid"},
			{"j", "mx.test.invalid"}, {"mail_addr", "alice@client.example"}, {"mail_host", "[127.0.0.1]:22525"},
			{"mail_mailer", "smtp"}, {"tls_version", "TLSv1.3"}},
		ClientName: "mail.client.example", ClientIP: "192.0.2.7", ClientPort: 41234, Helo: "mail.client.example", HasHelo: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	bob := Recipient{Address: "<bob@example.org>", Mailer: "smtp", Host: "[127.0.0.1]:22525", Addr: "bob@example.org",
		Args: []string{"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bob@example.org"}}
	drop := Recipient{Address: "<drop@example.org>", Mailer: "smtp", Host: "[127.0.0.1]:22525", Addr: "drop@example.org"}
	if err := errors.Join(d.Recipient(bob), d.QueueID("678F499C6BD"), d.QueueID("678F499C6BD"), d.Recipient(drop)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(d.Path(), "COMMANDS")); !strings.HasSuffix(got, "drop@example.org\n") {
		t.Errorf("COMMANDS before the content: %q", got)
	}
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(read(t, "testdata/message.eml"))); err != nil {
		t.Fatal(err)
	}
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"COMMANDS", "HEADERS", "INPUTMSG"} {
		got, want := read(t, filepath.Join(d.Path(), name)), read(t, "testdata/captured/"+name)
		if got != want {
			t.Errorf("%s\n got %q\nwant %q", name, got, want)
		}
	}
}

func TestEnvelopeLines(t *testing.T) {
	tests := []struct {
		name string
		env  Envelope
		want string
	}{
		{"null sender", Envelope{ID: "a"}, "ia\nS<>\n=client_port 0\nH\nI\n"},
		{"empty HELO", Envelope{ID: "a", Sender: "<>", HasHelo: true}, "ia\nS<>\n=client_port 0\nH\nI\nE\n"},
		{"queue id at MAIL", Envelope{ID: "a", QueueID: "q1", ClientPort: 7}, "ia\nS<>\n=client_port 7\nQq1\nH\nI\n"},
		{"empty macro", Envelope{ID: "a", Macros: [][2]string{{"mail_addr", ""}, {"", "x"}}},
			"ia\nS<>\n=mail_addr \n=client_port 0\nH\nI\n"},
		{"injection", Envelope{ID: "a", Sender: "<x\nF@y>", Helo: "a b\r\n%", HasHelo: true},
			"ia\nS<x%0AF@y>\n=client_port 0\nH\nI\nEa%20b%0D%0A%25\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.env.append(nil)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	r := Recipient{Address: "<a b@c>", Args: []string{"NOTIFY=NEVER"}}
	if got, want := string(r.append(nil)), "R<a%20b@c> ? ? ?\nrNOTIFY=NEVER\n"; got != want {
		t.Errorf("recipient: got %q, want %q", got, want)
	}
}

// FS-09.
func TestCreateRights(t *testing.T) {
	s := newSpool(t)
	d := newDir(t, s)
	for name, want := range map[string]fs.FileMode{".": fs.ModeDir | 0o700, "HEADERS": 0o600, "COMMANDS": 0o600} {
		info, err := os.Stat(filepath.Join(d.Path(), name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: mode %v, want %v", name, info.Mode(), want)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	g := &Spool{Dir: s.Dir, Group: "0"}
	defer g.Close()
	d = newDir(t, g)
	info, err := os.Stat(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	if want := fs.ModeDir | fs.ModeSetgid | 0o770; info.Mode() != want {
		t.Errorf("with a group: mode %v, want %v", info.Mode(), want)
	}
	if info, err = os.Stat(filepath.Join(d.Path(), "COMMANDS")); err != nil || info.Mode() != 0o640 {
		t.Errorf("with a group: COMMANDS %v %v, want 0640", info.Mode(), err)
	}
}

// FS-09.
func TestCreateNames(t *testing.T) {
	s := newSpool(t)
	one, err := s.Create("AB12")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(s.Dir, "mdefang-AB12"); one.Path() != want {
		t.Errorf("path %q, want %q", one.Path(), want)
	}
	two, err := s.Create("AB12")
	if err != nil {
		t.Fatalf("second directory of the same id: %v", err)
	}
	if !strings.HasPrefix(two.Path(), one.Path()+".") {
		t.Errorf("second path %q", two.Path())
	}
	for _, bad := range []string{"", "../x", "a/b", ".", "..", strings.Repeat("a", 32), "a b", "a\n"} {
		if d, err := s.Create(bad); err == nil {
			t.Errorf("queue id %q made %q", bad, d.Path())
		}
	}
	// A link of the coming name is not followed.
	if err := os.Symlink(t.TempDir(), filepath.Join(s.Dir, "mdefang-L")); err != nil {
		t.Fatal(err)
	}
	l, err := s.Create("L")
	if err != nil || l.Path() == filepath.Join(s.Dir, "mdefang-L") {
		t.Errorf("over a link: %v, %v", l, err)
	}
}

func TestSpoolRemovedMeanwhile(t *testing.T) {
	s := newSpool(t)
	newDir(t, s)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a spool: %v, want not exist", err)
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("a"); err != nil {
		t.Errorf("spool made again: %v", err)
	}
}

// TestSpoolMadeAgainBesideOthers: one that is at work when others find the spool gone goes on, and so do they.
func TestSpoolMadeAgainBesideOthers(t *testing.T) {
	t.Parallel()
	s := newSpool(t)
	early := newDir(t, s)
	remake := func() error { return errors.Join(os.RemoveAll(s.Dir), os.Mkdir(s.Dir, 0o700)) }
	if err := remake(); err != nil {
		t.Fatal(err)
	}
	first := newDir(t, s)
	if err := early.Remove(); err != nil {
		t.Errorf("from the spool before: %v", err)
	}
	if err := first.Remove(); err != nil {
		t.Error(err)
	}

	// Each fails for a moment at most, whenever it comes.
	var ended atomic.Bool
	var busy []*testenv.Task
	for range 4 {
		busy = append(busy, testenv.Go(t, "sessions", func() error {
			for !ended.Load() {
				if d, err := s.Create(NewQueueID()); err == nil {
					_ = d.Remove() // it may have gone with the spool
				}
			}
			return nil
		}))
	}
	for range 300 {
		if err := os.RemoveAll(s.Dir); err != nil {
			continue // one was made meanwhile
		}
		runtime.Gosched()
		_ = os.Mkdir(s.Dir, 0o700)
	}
	ended.Store(true)
	for _, b := range busy {
		b.Wait()
	}
	if err := remake(); err != nil {
		t.Fatal(err)
	}
	if err := newDir(t, s).Remove(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestInsecureSpool(t *testing.T) {
	base := t.TempDir()
	open := filepath.Join(base, "open")
	inner := filepath.Join(open, "spool")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		dir  string
		mode fs.FileMode // of open
		want bool
	}{
		{"parent writable for everybody", inner, 0o777, true},
		{"parent sticky", inner, 0o777 | fs.ModeSticky, false},
		{"itself sticky", open, 0o777 | fs.ModeSticky, true},
		{"private", inner, 0o700, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.mode&fs.ModeSticky != 0 && !tt.want { // it counts only if it is root's
				testenv.NeedRoot(t)
			}
			if err := os.Chmod(open, tt.mode); err != nil {
				t.Fatal(err)
			}
			s := &Spool{Dir: tt.dir}
			defer s.Close()
			err := s.Open()
			if got := errors.Is(err, safedir.ErrInsecure); got != tt.want {
				t.Errorf("open: %v; insecure %v, want %v", err, got, tt.want)
			}
		})
	}
}

func TestRelativeSpool(t *testing.T) {
	if err := (&Spool{Dir: "spool"}).Open(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("relative path: %v", err)
	}
}

func TestIDs(t *testing.T) {
	s := &Spool{}
	seen := map[string]bool{}
	for range 3600 {
		id := s.NewID()
		if len(id) != 7 || strings.Trim(id, idAlphabet) != "" {
			t.Fatalf("id %q", id)
		}
		seen[id[5:]] = true
	}
	if len(seen) != 3600 {
		t.Errorf("%d different counters, want 3600", len(seen))
	}
	if a, b := NewQueueID(), NewQueueID(); a == b || checkQueueID(a) != nil {
		t.Errorf("queue ids %q %q", a, b)
	}
	// The reference's example: 2026-11-22 04:38 UTC and ivED0 belong together.
	if got := string(clockDigits(time.Unix(1795322340, 0))); got[:3] != "ivE" {
		t.Errorf("clock digits %q, want ivE..", got)
	}
}

// TestWorkerChangesTheMessage has workers change INPUTMSG in every way: what is read is what was written, or nothing.
func TestWorkerChangesTheMessage(t *testing.T) {
	const header = "Subject: x\n\n"
	body := strings.Repeat("body\n", 100_000)
	write := func(path string, flag int, offset int64, text string) error {
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(text), offset)
		return errors.Join(err, f.Close())
	}
	for _, tt := range []struct {
		name   string
		change func(path string) error
		harm   bool
	}{
		{"nothing", func(string) error { return nil }, false},
		{"removes", os.Remove, false},
		{"renames another over it", func(path string) error {
			return errors.Join(os.WriteFile(path+".tmp", []byte("forged"), 0o600), os.Rename(path+".tmp", path))
		}, false},
		{"takes the rights away", func(path string) error { return os.Chmod(path, 0) }, false},
		{"appends", func(path string) error { return write(path, os.O_WRONLY, int64(len(header)+len(body)), "more\n") }, false},
		{"writes the same", func(path string) error { return write(path, os.O_WRONLY, 0, header+body[:1000]) }, false},
		{"writes into the header", func(path string) error { return write(path, os.O_WRONLY, 0, "s") }, true},
		{"writes into the body", func(path string) error { return write(path, os.O_WRONLY, 400_000, "B") }, true},
		{"writes the last byte", func(path string) error {
			return write(path, os.O_WRONLY, int64(len(header)+len(body))-1, "x")
		}, true},
		{"writes through another name", func(path string) error {
			return errors.Join(os.Link(path, path+".link"), write(path+".link", os.O_WRONLY, 20, "B"))
		}, true},
		{"shortens", func(path string) error { return os.Truncate(path, 100_000) }, true},
		{"shortens into the header", func(path string) error { return os.Truncate(path, 5) }, true},
		{"empties", func(path string) error { return os.Truncate(path, 0) }, true},
		{"shortens, and makes it long again", func(path string) error {
			return errors.Join(os.Truncate(path, 100_000), os.Truncate(path, int64(len(header)+len(body))))
		}, true},
		{"maps it and writes", func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			m, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
			if err != nil {
				return err
			}
			m[100] ^= 1
			return errors.Join(syscall.Munmap(m), f.Close())
		}, true},
	} {
		for _, when := range []string{"before", "between", "while"} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				d := finish(t, newSpool(t), strings.ReplaceAll(header+body, "\n", "\r\n"), 0)
				change := func(now string) {
					if now == when {
						if err := tt.change(filepath.Join(d.Path(), fileInput)); err != nil {
							t.Fatal(err)
						}
					}
				}
				change("before")
				head, err := d.Header()
				change("between")
				var text []byte
				if err == nil {
					r, err2 := d.Body()
					if err2 != nil {
						t.Fatal(err2)
					}
					text = make([]byte, 10)
					_, err = io.ReadFull(r, text)
					change("while")
					if err == nil {
						var rest []byte
						rest, err = io.ReadAll(r)
						text = append(text, rest...)
					}
				}
				switch same := string(head)+string(text) == header+body; {
				case err == nil && !same:
					t.Error("another message was read as if it were whole")
				case err != nil && !errors.Is(err, ErrChanged):
					t.Error(err)
				case !tt.harm && err != nil:
					t.Errorf("%v, although nothing was changed", err)
				}
			})
		}
	}
}

func TestWriteAfterRemove(t *testing.T) {
	d := newDir(t, newSpool(t))
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("write after Remove succeeded")
	}
	if err := d.Recipient(Recipient{}); err == nil {
		t.Error("Recipient after Remove succeeded")
	}
	if err := d.Finish(); err == nil {
		t.Error("Finish after Remove succeeded")
	}
	if err := d.Remove(); err != nil {
		t.Errorf("second Remove: %v", err)
	}
}

func TestNoSpace(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no /dev/full: %v", err)
	}
	d := newDir(t, newSpool(t))
	c, err := d.Content()
	if err != nil {
		t.Fatal(err)
	}
	_ = d.input.Close()
	d.input = full
	_, _ = c.Write([]byte("Subject: x\r\n\r\n"))
	_, err = c.Write(bytes.Repeat([]byte("x"), 2*pieceSize))
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("write: %v, want %v", err, ErrNoSpace)
	}
	if err := d.Finish(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("finish: %v, want %v", err, ErrNoSpace)
	}
}
