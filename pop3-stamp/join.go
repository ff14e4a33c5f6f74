package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// What happens to commands that the proxy does not know.
const (
	unknownStrict = "strict"
	unknownPass   = "pass"
)

// serverEnded is the reason of a session whose server has ended the connection.
const serverEnded = "upstream server ended"

// joined is a session of which nothing is read any more but lines of the client: what the server says goes to the client
// as it comes.
type joined struct {
	*session
	quit  atomic.Bool   // the client has said so
	moved atomic.Int64  // bytes of the server
	ended chan struct{} // closed when nothing more comes from the server
	why   string        // reason, where it is the server's; valid once ended
	tail  []byte        // the last bytes of the server; valid once ended
}

// join passes on a command that the proxy does not know. As nobody can tell where the reply to it ends, the two sides are
// joined from here on.
func (s *session) join(ctx context.Context, line string) {
	if !s.flush() {
		return
	}
	_ = s.stat.Update(parseCommand(line).verb) // what follows may be anything, such as a secret
	j := &joined{session: s, ended: make(chan struct{})}
	_ = s.server.conn.SetReadDeadline(time.Time{})
	go j.serverToClient()
	j.end(j.clientToServer(ctx, line), "")
	if !j.quit.Load() {
		_ = s.server.conn.Close()
	}
	select {
	case <-j.ended:
	case <-time.After(s.server.timeout):
		_ = s.server.conn.Close()
		<-j.ended
	}
	s.sent += j.moved.Load()
	if j.quit.Load() && j.why == serverEnded && bytes.HasPrefix(lastLine(j.tail), []byte("+OK")) {
		s.renew(ctx)
	}
}

// serverToClient copies what the server says until it ends, or the client is gone.
func (j *joined) serverToClient() {
	defer func() {
		if !j.quit.Load() {
			hangUp(j.raw) // wakes who reads from the client, and finds that this has ended
		}
	}()
	defer close(j.ended)
	piece := make([]byte, joinedBuffer)
	for {
		n, err := j.server.conn.Read(piece)
		if n > 0 {
			j.tail = appendTail(j.tail, piece[:n])
			if _, failed := (toClient{j.session}).Write(piece[:n]); failed != nil {
				return
			}
			j.moved.Add(int64(n))
		}
		if err != nil {
			j.why = "upstream server failed"
			if isEnd(err) {
				j.why = serverEnded
			}
			return
		}
	}
}

// clientToServer passes lines on, the first of which is there, until the client says QUIT or one of the two is gone. It
// returns the reason for the log.
func (j *joined) clientToServer(ctx context.Context, line string) string {
	for {
		quit := strings.EqualFold(line, "QUIT")
		j.quit.Store(quit)
		_ = j.server.conn.SetWriteDeadline(time.Now().Add(j.server.timeout))
		if _, err := j.server.conn.Write([]byte(line + "\r\n")); err != nil {
			return "upstream server failed"
		}
		if quit {
			return whyQuit
		}
		var err error
		line, err = j.next(ctx)
		select {
		case <-j.ended:
			if j.why != "" {
				return j.why
			}
		default:
		}
		switch {
		case err == nil && hasControl(line):
			return "malformed command"
		case err != nil:
			return j.whyLost(ctx, err)
		}
	}
}

// next waits for the next line of the client, as long as one of the two sides says something.
func (j *joined) next(ctx context.Context) (string, error) {
	for {
		before := j.moved.Load()
		line, err := j.readCommand(ctx)
		if !errors.Is(err, errSilent) || ctx.Err() != nil || j.moved.Load() == before {
			return line, err
		}
	}
}

// hangUp ends what is read from a connection. What is written goes on, where the connection can tell the two apart.
func hangUp(conn net.Conn) {
	if c, ok := conn.(interface{ CloseRead() error }); !ok || c.CloseRead() != nil {
		_ = conn.Close()
	}
}

// appendTail keeps the last bytes of a stream, as many as a line may have.
func appendTail(tail, p []byte) []byte {
	tail = append(tail, p[max(0, len(p)-maxCommand):]...)
	return append(tail[:0], tail[max(0, len(tail)-maxCommand):]...)
}

// lastLine returns the last line, without its end.
func lastLine(text []byte) []byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	return text[bytes.LastIndexByte(text, '\n')+1:]
}
