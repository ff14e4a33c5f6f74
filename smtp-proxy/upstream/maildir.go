package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	smtpserver "github.com/emersion/go-smtp"

	"postern/internal/safedir"
	"postern/internal/smtp"
)

// maildirServer is an SMTP server within this process that delivers into one Maildir, for trying out, for
// tests and as a quarantine. It is met over socket pairs, so that nothing about it is different from any
// other server.
type maildirServer struct {
	path  string
	host  string
	count atomic.Uint64
	srv   *smtpserver.Server
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// newMaildirServer makes the Maildir if it is missing, and the server.
func newMaildirServer(path, host string, logger *slog.Logger) (*maildirServer, error) {
	for _, dir := range []string{path, filepath.Join(path, "tmp"), filepath.Join(path, "new"), filepath.Join(path, "cur")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make Maildir: %w", err)
		}
		if err := safedir.Check(dir); err != nil {
			return nil, fmt.Errorf("open Maildir: %w", err)
		}
	}
	m := &maildirServer{path: path, host: host, conns: make(chan net.Conn), done: make(chan struct{})}
	m.srv = smtpserver.NewServer(smtpserver.BackendFunc(func(*smtpserver.Conn) (smtpserver.Session, error) {
		return &maildirSession{m: m}, nil
	}))
	m.srv.Domain = host
	m.srv.MaxLineLength = 0 // the client is ourselves, and has looked
	m.srv.EnableSMTPUTF8, m.srv.EnableDSN = true, true
	m.srv.ErrorLog = log.New(logWriter{logger.With("maildir", path)}, "", 0)
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		_ = m.srv.Serve(m) // its error is that of Accept: closed
	}()
	return m, nil
}

// logWriter passes on what the server half logs.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn("Maildir server", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}

// dial opens a connection to the server half.
func (m *maildirServer) dial(ctx context.Context) (*stream, error) {
	ours, file, err := socketPair()
	if err != nil {
		return nil, err
	}
	theirs, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	select {
	case m.conns <- worded{theirs}:
		return newStream(ours), nil
	case <-m.done:
		err = ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = ours.Close(), theirs.Close()
	return nil, err
}

// worded says to MAIL and RCPT what other servers say, with the codes of RFC 3463, 3.2. The server half has
// no other way to choose the words of these replies, each of which it writes at once; and clients hear them.
type worded struct{ net.Conn }

var wording = []struct{ theirs, ours []byte }{
	{[]byte("250 2.0.0 Roger, accepting mail from <"), []byte("250 2.1.0 Ok\r\n")},
	{[]byte("250 2.0.0 I'll make sure <"), []byte("250 2.1.5 Ok\r\n")},
}

// Write writes a reply.
func (w worded) Write(p []byte) (int, error) {
	for _, word := range wording {
		if bytes.HasPrefix(p, word.theirs) && bytes.IndexByte(p, '\n') == len(p)-1 {
			_, err := w.Conn.Write(word.ours)
			return len(p), err
		}
	}
	return w.Conn.Write(p)
}

func (m *maildirServer) close() {
	_ = m.Close()
	m.wg.Wait()
}

// Accept, Close and Addr make a listener of the server half's side.
func (m *maildirServer) Accept() (net.Conn, error) {
	select {
	case nc := <-m.conns:
		return nc, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (m *maildirServer) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// Addr names the Maildir.
func (m *maildirServer) Addr() net.Addr { return &net.UnixAddr{Name: m.path, Net: "unix"} }

// maildirSession is one connection to the server half.
type maildirSession struct {
	m    *maildirServer
	from string
	to   []string
}

// Reset forgets the envelope.
func (s *maildirSession) Reset() { s.from, s.to = "", nil }

// Logout ends the session.
func (s *maildirSession) Logout() error { return nil }

// Mail notes the sender.
func (s *maildirSession) Mail(from string, _ *smtpserver.MailOptions) error {
	s.from, s.to = from, nil
	return nil
}

// Rcpt notes a recipient; everybody is welcome.
func (s *maildirSession) Rcpt(to string, _ *smtpserver.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data delivers the message. Any failure is temporary: the disk is the trouble, not the message.
func (s *maildirSession) Data(r io.Reader) error {
	name, err := s.m.deliver(s.from, s.to, r)
	if err != nil {
		s.m.srv.ErrorLog.Printf("%v", err)
		return &smtpserver.SMTPError{Code: 451, EnhancedCode: smtpserver.EnhancedCode{4, 3, 0}, Message: "Message cannot be stored now"}
	}
	return &smtpserver.SMTPError{Code: 250, EnhancedCode: smtpserver.EnhancedCode{2, 0, 0}, Message: "Ok: queued as " + name}
}

// deliver writes a message into the Maildir: complete and on the disk before it appears in new, as
// maildir(5) wants it. It gives the name of the file.
func (m *maildirServer) deliver(from string, to []string, content io.Reader) (string, error) {
	name, err := m.uniqueName()
	if err != nil {
		return "", err
	}
	tmp := filepath.Join(m.path, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	err = writeMessage(f, from, to, content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	place := filepath.Join(m.path, "new", name)
	if err == nil {
		err = os.Rename(tmp, place)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	if err := syncDir(filepath.Dir(place)); err != nil {
		return "", errors.Join(err, os.Remove(place)) // or it would be there twice when the client tries again
	}
	return name, nil
}

// withDomain adds our name to an address without domain, such as <postmaster>: the server half knows none.
func withDomain(line, host string) string {
	for _, command := range []string{"MAIL FROM:", "RCPT TO:"} {
		rest, ok := smtp.CutKeyword(line, command)
		if !ok {
			continue
		}
		path, params, err := smtp.ParsePath(rest, smtp.CheckOff)
		if err != nil || path.Null() || path.Domain != "" {
			break
		}
		path.Address += "@" + host
		return strings.TrimSpace(command + path.String() + " " + params)
	}
	return line
}

// uniqueName makes a name that no other delivery has: time, process, count, chance and host.
func (m *maildirServer) uniqueName() (string, error) {
	var chance [6]byte
	if _, err := rand.Read(chance[:]); err != nil {
		return "", err
	}
	now := time.Now()
	host := strings.NewReplacer("/", `\057`, ":", `\072`).Replace(m.host)
	return fmt.Sprintf("%d.M%dP%dQ%dR%s.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), m.count.Add(1),
		hex.EncodeToString(chance[:]), host), nil
}

// writeMessage writes the message with the line ends of files.
func writeMessage(f io.Writer, from string, to []string, content io.Reader) error {
	w := bufio.NewWriterSize(f, 64<<10)
	fmt.Fprintf(w, "Return-Path: <%s>\n", from)
	for _, rcpt := range to {
		fmt.Fprintf(w, "Delivered-To: %s\n", rcpt)
	}
	lines := bufio.NewReaderSize(content, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		text := bytes.TrimRight(line, "\r\n") // a CR is there only in front of LF, or of a cut
		if _, err := w.Write(text); err != nil {
			return err
		}
		if bytes.HasSuffix(line, newline) {
			_ = w.WriteByte('\n') // its error stays, for Flush
		}
		switch {
		case err == io.EOF:
			return w.Flush()
		case err != nil && err != bufio.ErrBufferFull:
			return err
		}
	}
}

var newline = []byte{'\n'}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
