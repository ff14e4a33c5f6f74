package main

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"
	"time"
)

// deafConn is a connection whose other side says what it has to say, whatever it hears.
type deafConn struct {
	net.Conn
	said *bytes.Reader
}

func (c deafConn) Read(p []byte) (int, error)       { return c.said.Read(p) }
func (c deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c deafConn) SetWriteDeadline(time.Time) error { return nil }

// FuzzReply has the server behind say anything: what clients are given of it is one line of printable text, and no line
// but one that begins with +OK is a success.
func FuzzReply(f *testing.F) {
	for _, said := range []string{"+OK ready <1896.697170952@dbc.mtview.ca.us>\r\n", "-ERR [AUTH] no\r\n", "+ YWJj\r\n", "+OK\n+OK\n", "+OK \x00\x1b[2J\r\n", "+OKAY\r\n", "\r\n", ""} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		b := &backend{conn: deafConn{said: bytes.NewReader(said)}, timeout: time.Second}
		b.r = bufio.NewReaderSize(b.conn, 16<<10)
		a, err := b.reply()
		if err != nil {
			return
		}
		status, _, _ := strings.Cut(strings.TrimRight(string(said[:bytes.IndexByte(said, '\n')]), "\r"), " ")
		if a.ok != (status == "+OK") || a.more != (status == "+") || !a.ok && !a.more && status != "-ERR" {
			t.Errorf("%q is %+v", said, a)
		}
		for _, text := range []string{a.text, timestamp(a.text)} {
			if !a.more && (hasControl(text) || len(text) > 512) {
				t.Errorf("%q gives %q", said, text)
			}
		}
	})
}
