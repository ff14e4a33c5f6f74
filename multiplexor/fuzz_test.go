package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"postern/internal/evloop"
	"postern/internal/percent"
	"postern/internal/testenv"
)

// FuzzNetstring holds that what is taken for a netstring is one, that nothing is
// read beyond it, and that pieces give what the whole gives.
func FuzzNetstring(f *testing.F) {
	for _, s := range []string{"3:a b,", " 003:a b,x", "0:,", "65537:", "3:a b;", ":,", "-1:,", "99999999999999999999:", "5:ab", "1 2:x,"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text, size, comma, err := readNetstring(b)
		switch {
		case err != nil, size == 0:
			if text != nil {
				t.Fatalf("%q: text %q without a netstring", b, text)
			}
			return
		case size > len(b) || len(text) > maxNetstring:
			t.Fatalf("%q: size %d, text of %d bytes", b, size, len(text))
		case comma != (b[size-1] == ','):
			t.Fatalf("%q: comma %v", b, comma)
		}
		for i := range size {
			if _, n, _, err := readNetstring(b[:i]); n != 0 || err != nil {
				t.Fatalf("%q: the first %d bytes are taken for %d, %v", b, i, n, err)
			}
		}
	})
}

// FuzzRequestLine sends anything to a real server over a socket pair, in two
// pieces, and sees that there is one reply, or none for nothing, and an end.
func FuzzRequestLine(f *testing.F) {
	for _, s := range []string{"free\n", "free\nmsgs\n", "hello 2\nfree\nstatus\n", "\x00\n", "workerinfo 99999999999999999999\n", "load1 \n", "", "no end", "scan  \n", "\r\n"} {
		f.Add([]byte(s), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		loop, err := evloop.New()
		if err != nil {
			t.Fatal(err)
		}
		s := newTestServer(t, loop, nil) // workers are another test's matter
		s.maxLine = 100
		clients := &endpoint{server: s, protocol: requestLines(s.maxLine), limit: 10}
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		run := testenv.Go(t, "the loop", loop.Run)
		loop.Post(func() { clients.admit(fds[0]) })
		file := os.NewFile(uintptr(fds[1]), "client")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		if cut < 0 || cut > len(text) {
			cut = 0
		}
		testenv.Patient(conn)
		conn.Write(text[:cut]) // the server may have answered and closed
		conn.Write(text[cut:])
		conn.(*net.UnixConn).CloseWrite()
		reply, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%q: no end after %q", text, reply)
		}
		conn.Close()
		closed := make(chan int, 1)
		loop.Post(func() { closed <- clients.open; loop.Stop() })
		if n := testenv.Receive(t, "the count of connections", closed); n != 0 {
			t.Errorf("%q: %d connections left open", text, n)
		}
		run.Wait()
		loop.Close()
		line, _, whole := bytes.Cut(text, []byte("\n"))
		if whole && string(line) == "free" && !bytes.HasPrefix(reply, []byte("2\n")) {
			t.Errorf("%q answered %q", text, reply)
		}
	})
}

// FuzzScanned: a line that any worker could take for a scan is seen as one, with the
// directory that it would take.
func FuzzScanned(f *testing.F) {
	for _, s := range []string{"scan q /d", "SCAN q /d", "%73can\tq\v/d x", " scan", "senderok <a>", "scan%20q /d", "s", "%", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		dir, ok := scanned([]byte(line))
		var words []string
		for _, w := range regexp.MustCompile("[ \t\n\v\f\r]+").Split(line, -1) {
			if w != "" {
				words = append(words, percent.Decode(w))
			}
		}
		want, wantDir := len(words) > 0 && strings.EqualFold(words[0], "scan"), ""
		if want && len(words) > 2 {
			wantDir = words[2]
		}
		if ok != want || dir != wantDir {
			t.Errorf("%q: scan %v of %q, want %v of %q", line, ok, dir, want, wantDir)
		}
	})
}
