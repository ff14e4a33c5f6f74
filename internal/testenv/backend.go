package testenv

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Backend is an SMTP server for tests to put behind a proxy. It takes nothing that the letter of the
// protocol does not allow, keeps what it got byte for byte, and notes each breach.
type Backend struct {
	Addr string // host:port
	Port int

	t          testing.TB
	l          net.Listener
	wg         sync.WaitGroup
	mu         sync.Mutex
	extensions []string
	answer     func(Asked) string
	messages   []Received
	commands   []string
	breaches   []string
	conns      map[net.Conn]struct{}
	opened     int
	closed     bool
}

// Asked is what the server has to answer: the greeting (verb ""), a command, or the end of content
// (verb "."), within connection number Conn, from 1.
type Asked struct {
	Conn int
	Verb string // in capitals
	Line string // the whole command without its end; the content for "."
}

// Received is one message.
type Received struct {
	Conn int
	From string   // argument of MAIL
	To   []string // arguments of RCPT that were accepted
	Data string   // content, decoded
	Wire string   // content as it came, with stuffed dots and the end of data
}

// StartBackend starts a server that offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN and
// ENHANCEDSTATUSCODES, and accepts everything. It ends with the test; breaches of the protocol fail it.
func StartBackend(t testing.TB) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ServeBackend(t, l)
}

// ServeBackend is StartBackend on a listener that is there already.
func ServeBackend(t testing.TB, l net.Listener) *Backend {
	b := &Backend{
		Addr: l.Addr().String(), t: t, l: l, conns: make(map[net.Conn]struct{}),
		extensions: []string{"PIPELINING", "SIZE 1000000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"},
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		b.Port = tcp.Port
	}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		b.Close()
		for _, breach := range b.Breaches() {
			t.Errorf("the next hop saw: %s", breach)
		}
	})
	return b
}

// Extend sets what the reply to EHLO offers.
func (b *Backend) Extend(extensions ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.extensions = extensions
}

// Answer has f give the replies, without their line end (lines of one reply are separated by CR LF).
// "" leaves the reply to the server; "close" ends the connection; "hang" never answers.
func (b *Backend) Answer(f func(Asked) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

// Close ends the server and its connections. The address stays free for another one.
func (b *Backend) Close() {
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.l.Close()
	b.wg.Wait()
}

// Messages gives what was received whole, so far.
func (b *Backend) Messages() []Received {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// Commands gives all command lines, so far, in the order they came; "." is the end of content.
func (b *Backend) Commands() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.commands)
}

// Opened says how many connections there were.
func (b *Backend) Opened() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened
}

// Breaches gives what was against the protocol.
func (b *Backend) Breaches() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.breaches)
}

// Forget forgets messages and commands: a test that goes on for long has looked at them.
func (b *Backend) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages, b.commands = nil, nil
}

// Forgive forgets the breaches: the test has looked at them.
func (b *Backend) Forgive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breaches = nil
}

func (b *Backend) accept() {
	for {
		c, err := b.l.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		if b.closed {
			c.Close()
			b.mu.Unlock()
			return
		}
		b.conns[c] = struct{}{}
		b.opened++
		s := &backendSession{b: b, c: c, r: bufio.NewReaderSize(c, 64<<10), number: b.opened}
		b.mu.Unlock()
		b.wg.Go(func() {
			s.run()
			c.Close()
			b.mu.Lock()
			delete(b.conns, c)
			b.mu.Unlock()
		})
	}
}

// backendSession is one connection.
type backendSession struct {
	b       *Backend
	c       net.Conn
	r       *bufio.Reader
	number  int
	hello   bool
	message *Received // between MAIL and the end of content
}

func (s *backendSession) breach(format string, args ...any) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.breaches = append(s.b.breaches, fmt.Sprintf("connection %d: ", s.number)+fmt.Sprintf(format, args...))
}

// reply answers; false ends the connection.
func (s *backendSession) reply(verb, line, usual string) (code string, ok bool) {
	s.b.mu.Lock()
	if verb != "" {
		text := line
		if verb == "." {
			text = "."
		}
		s.b.commands = append(s.b.commands, text)
	}
	answer := s.b.answer
	s.b.mu.Unlock()
	text := usual
	if answer != nil {
		if t := answer(Asked{Conn: s.number, Verb: verb, Line: line}); t != "" {
			text = t
		}
	}
	s.b.mu.Lock() // so that the call of answer for another connection sees what this one has written
	if verb == "." && text[0] == '2' {
		s.b.messages = append(s.b.messages, *s.message)
	}
	s.b.mu.Unlock()
	switch text {
	case "close":
		return "", false
	case "hang":
		io.Copy(io.Discard, s.c)
		return "", false
	}
	if n := s.early(verb); n > 0 {
		s.breach("%d bytes came before the reply to %q", n, verb)
	}
	_ = s.c.SetWriteDeadline(time.Now().Add(Patience))
	_, err := io.WriteString(s.c, text+"\r\n")
	last := text[strings.LastIndex(text, "\n")+1:]
	return last[:min(3, len(last))], err == nil
}

// early says how many bytes are there already, or come within a moment, where the client should wait for a reply: to
// the last command of a group (RFC 2920, 3.1; RFC 4954, 4), or to any without PIPELINING.
func (s *backendSession) early(verb string) int {
	switch verb {
	case "": // to look could be to begin a TLS handshake, which has more time
		return 0
	case "MAIL", "RCPT", "RSET", ".":
		s.b.mu.Lock()
		grouped := slices.Contains(s.b.extensions, "PIPELINING")
		s.b.mu.Unlock()
		if grouped {
			return 0
		}
	}
	const moment = time.Millisecond
	_ = s.c.SetReadDeadline(time.Now().Add(moment))
	_, _ = s.r.Peek(1)
	_ = s.c.SetReadDeadline(time.Time{})
	return s.r.Buffered()
}

func (s *backendSession) run() {
	if _, ok := s.reply("", "", "220 backend.example ESMTP"); !ok {
		return
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			if line != "" && err == io.EOF { // it was the other side that ended it there
				s.breach("half a command: %q", line)
			}
			return
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || strings.ContainsAny(text, "\r\n\x00") {
			s.breach("malformed command line %q", line)
		}
		if len(line) > 2048 {
			s.breach("command line of %d bytes", len(line))
		}
		verb, arg, _ := strings.Cut(text, " ")
		if !s.command(strings.ToUpper(verb), arg, text) {
			return
		}
	}
}

// command carries one command out; false ends the connection.
func (s *backendSession) command(verb, arg, line string) bool {
	usual := "250 2.0.0 Ok"
	switch verb {
	case "EHLO", "LHLO":
		s.b.mu.Lock()
		lines := append([]string{"backend.example"}, s.b.extensions...)
		s.b.mu.Unlock()
		usual = "250-" + strings.Join(lines[:len(lines)-1], "\r\n250-") + "\r\n250 " + lines[len(lines)-1]
		if len(lines) == 1 {
			usual = "250 " + lines[0]
		}
		s.hello, s.message = true, nil
	case "HELO":
		s.hello, s.message = true, nil
	case "RSET":
		s.message = nil
	case "QUIT":
		s.reply(verb, line, "221 2.0.0 Bye")
		return false
	case "MAIL", "RCPT", "DATA":
		return s.transaction(verb, arg, line)
	case "XCLIENT":
		usual = "220 backend.example ESMTP"
	case "AUTH":
		return s.auth(line)
	case "NOOP":
	default:
		s.breach("unknown command %q", line)
		usual = "502 5.5.1 Unknown"
	}
	_, ok := s.reply(verb, line, usual)
	return ok
}

// auth is AUTH and the lines of its dialog: as long as the answer is 334 another line is due.
func (s *backendSession) auth(line string) bool {
	for {
		code, ok := s.reply("AUTH", line, "235 2.7.0 Ok")
		if code != "334" || !ok {
			return ok
		}
		next, err := s.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line, ok = strings.CutSuffix(next, "\r\n"); !ok {
			s.breach("malformed line of AUTH %q", next)
		}
	}
}

// transaction is MAIL, RCPT and DATA, with their order.
func (s *backendSession) transaction(verb, arg, line string) bool {
	switch {
	case !s.hello:
		s.breach("%s before EHLO", verb)
	case verb == "MAIL" && s.message != nil:
		s.breach("MAIL within a transaction: %q", line)
	case verb == "MAIL" && !strings.HasPrefix(arg, "FROM:<"), verb == "RCPT" && !strings.HasPrefix(arg, "TO:<"):
		s.breach("malformed %q", line)
	}
	usual := "250 2.1.0 Ok"
	if verb == "RCPT" {
		usual = "250 2.1.5 Ok"
	}
	switch {
	case verb != "MAIL" && s.message == nil:
		usual = "503 5.5.1 MAIL first"
	case verb == "DATA" && len(s.message.To) == 0:
		usual = "554 5.5.1 No valid recipients"
	case verb == "DATA":
		usual = "354 Go ahead"
	}
	code, ok := s.reply(verb, line, usual)
	switch {
	case !ok:
		return false
	case verb == "MAIL" && code[0] == '2':
		s.message = &Received{Conn: s.number, From: strings.TrimPrefix(arg, "FROM:")}
	case verb == "RCPT" && code[0] == '2' && s.message != nil:
		s.message.To = append(s.message.To, strings.TrimPrefix(arg, "TO:"))
	case verb == "DATA" && code == "354":
		return s.content()
	}
	return true
}

// content reads a message up to its end.
func (s *backendSession) content() bool {
	if s.message == nil {
		s.message = &Received{Conn: s.number}
	}
	m := s.message
	var wire, data bytes.Buffer
	for {
		line, err := s.r.ReadBytes('\n')
		wire.Write(line)
		if err != nil {
			return false // what was not ended does not count
		}
		if string(line) == ".\r\n" && (wire.Len() == 3 || bytes.HasSuffix(wire.Bytes(), []byte("\r\n.\r\n"))) {
			break
		}
		s.contentLine(line)
		data.Write(bytes.TrimPrefix(line, []byte(".")))
	}
	m.Wire, m.Data = wire.String(), data.String()
	_, ok := s.reply(".", m.Data, fmt.Sprintf("250 2.0.0 Ok: queued as B%d", s.number))
	s.message = nil
	return ok
}

// contentLine looks at one line of content: INV-3.
func (s *backendSession) contentLine(line []byte) {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		s.breach("bare LF in content: %.60q", line)
	}
	if bytes.ContainsAny(text, "\r\x00") {
		s.breach("bare CR or NUL in content: %.60q", line)
	}
	if len(text) > 0 && text[0] == '.' && (len(text) < 2 || text[1] != '.') {
		s.breach("line with a dot that is not stuffed: %.60q", line)
	}
}
