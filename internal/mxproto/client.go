package mxproto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	defaultMaxReply = 1 << 20
	defaultMaxIdle  = 64
	// A multiplexor that did not know hello is asked again after this time: it may
	// have been replaced by one that does.
	helloAgain = 5 * time.Minute
)

// ErrNoReply is returned when the multiplexor closed the connection without a
// byte of an answer.
var ErrNoReply = errors.New("connection closed without an answer")

// ErrClassic is wrapped by the error of AskOurs when the multiplexor does not know persistent connections.
var ErrClassic = errors.New("not a multiplexor of Postern")

// Client sends requests to a multiplexor. It may be used by many goroutines at
// once. Every failure is temporary from the point of view of a mail.
type Client struct {
	// Dial makes a connection to the request socket.
	Dial func(ctx context.Context) (net.Conn, error)
	// Persistent keeps connections open between requests (hello 2). With a
	// multiplexor that does not know it the client goes on with a connection per
	// request. Requests never share a connection at the same time, so that a slow
	// scan holds up nobody else.
	Persistent bool
	MaxIdle    int // idle persistent connections kept; 0 = 64
	MaxReply   int // bytes of a reply; 0 = 1 MiB; a longer one is an error

	mu      sync.Mutex
	idle    []*persistent
	classic time.Time // no hello until then
	closed  bool
}

type persistent struct {
	net.Conn
	r *bufio.Reader
}

// Ask sends one request line, without its LF, and gives the whole reply with the
// LF it ends in. The context bounds everything; without a deadline Ask waits as
// long as the multiplexor does.
func (c *Client) Ask(ctx context.Context, request string) (string, error) {
	return c.checked(ctx, request, c.ask)
}

// AskOurs is Ask for requests that a multiplexor answers itself over a persistent connection, and which another one would
// hand to a worker.
func (c *Client) AskOurs(ctx context.Context, request string) (string, error) {
	return c.checked(ctx, request, c.askOurs)
}

func (c *Client) checked(ctx context.Context, request string, ask func(context.Context, string) (string, error)) (string, error) {
	verb, _, _ := strings.Cut(request, " ")
	if strings.ContainsAny(request, "\n\x00") {
		return "", fmt.Errorf("ask the multiplexor %.40q: LF or NUL in a request", verb)
	}
	reply, err := ask(ctx, request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("ask the multiplexor %.40q: %w", verb, err)
	}
	return reply, nil
}

func (c *Client) ask(ctx context.Context, request string) (string, error) {
	if c.Persistent {
		if reply, err := c.askOurs(ctx, request); !errors.Is(err, ErrClassic) {
			return reply, err
		}
	}
	conn, err := c.Dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer bind(ctx, conn)()
	if _, err := io.WriteString(conn, request+"\n"); err != nil {
		// A multiplexor that refuses may answer and close before it has read all.
		if reply, rerr := c.readToEnd(conn); rerr == nil {
			return reply, nil
		}
		return "", fmt.Errorf("write: %w", err)
	}
	return c.readToEnd(conn)
}

func (c *Client) askOurs(ctx context.Context, request string) (string, error) {
	p, refusal, err := c.take(ctx)
	switch {
	case err != nil:
		return "", err
	case refusal != "":
		return refusal, nil
	case p == nil:
		return "", ErrClassic
	}
	return c.askPersistent(ctx, p, request)
}

func (c *Client) maxReply() int {
	if c.MaxReply > 0 {
		return c.MaxReply
	}
	return defaultMaxReply
}

func (c *Client) readToEnd(conn net.Conn) (string, error) {
	limit := c.maxReply()
	b, err := io.ReadAll(io.LimitReader(conn, int64(limit)+1))
	switch {
	case len(b) > limit:
		return "", fmt.Errorf("reply of more than %d bytes", limit)
	case err != nil:
		return "", fmt.Errorf("read: %w", err)
	case len(b) == 0:
		return "", ErrNoReply
	}
	return string(b), nil
}

// Unlocked returns when the lock of the client has been free. It is never held while a reply is waited for.
func (c *Client) Unlocked() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// bind makes the end of ctx the end of what conn is waiting for. The function it
// returns undoes that and reports whether the context had not ended.
func bind(ctx context.Context, conn net.Conn) (release func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// take returns an idle persistent connection or makes one. It gives none if the
// multiplexor does not know persistent connections, or refuses one: then the refusal
// is the reply to whatever was to be asked.
func (c *Client) take(ctx context.Context) (p *persistent, refusal string, err error) {
	c.mu.Lock()
	for len(c.idle) > 0 {
		p := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if p.r.Buffered() == 0 && quiet(p.Conn) {
			c.mu.Unlock()
			return p, "", nil
		}
		p.Close()
	}
	classic := time.Now().Before(c.classic)
	c.mu.Unlock()
	if classic {
		return nil, "", nil
	}
	return c.hello(ctx)
}

// hello makes a persistent connection. Only the answer of a worker shows a multiplexor
// that does not know them: one that is full, or is ending, does.
func (c *Client) hello(ctx context.Context) (p *persistent, refusal string, err error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, "", err
	}
	release := bind(ctx, conn)
	defer release()
	p = &persistent{Conn: conn, r: bufio.NewReaderSize(conn, 1024)}
	_, werr := io.WriteString(conn, Hello+"\n") // one that refuses may have answered and closed
	line, err := p.r.ReadSlice('\n')
	if werr == nil && err == nil && string(line) == HelloOK {
		return p, "", nil
	}
	conn.Close()
	answer := string(line)
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case answer == TooMany || answer == NotAllowed:
		return nil, answer, nil
	case answer == "" && err == io.EOF:
		return nil, "", ErrNoReply
	case strings.HasPrefix(HelloOK, answer):
		return nil, "", fmt.Errorf("read the answer to %s: %w", Hello, errors.Join(werr, err))
	}
	c.mu.Lock()
	c.classic = time.Now().Add(helloAgain)
	c.mu.Unlock()
	return nil, "", nil
}

func (c *Client) askPersistent(ctx context.Context, p *persistent, request string) (string, error) {
	release := bind(ctx, p.Conn)
	reply, err := "", error(nil)
	if _, err = io.WriteString(p, request+"\n"); err == nil {
		reply, err = readFrame(p.r, c.maxReply())
	}
	if !release() || err != nil {
		p.Close()
		return reply, err
	}
	c.put(p)
	return reply, nil
}

func (c *Client) put(p *persistent) {
	limit := c.MaxIdle
	if limit <= 0 {
		limit = defaultMaxIdle
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= limit {
		p.Close()
		return
	}
	c.idle = append(c.idle, p)
}

// Close closes the idle connections. Requests under way end in their own time.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, p := range c.idle {
		p.Close()
	}
	c.idle = nil
}

// AppendFrame appends a reply as it goes over a persistent connection: its length
// in decimal, a colon, its bytes, a comma (a netstring).
func AppendFrame(dst, reply []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(reply)), 10)
	dst = append(dst, ':')
	dst = append(dst, reply...)
	return append(dst, ',')
}

func readFrame(r *bufio.Reader, limit int) (string, error) {
	head, err := r.ReadSlice(':')
	if err != nil {
		if err == io.EOF && len(head) == 0 {
			return "", ErrNoReply
		}
		return "", fmt.Errorf("read the length of a reply: %w", err)
	}
	n, err := strconv.ParseUint(string(head[:len(head)-1]), 10, 31)
	if err != nil {
		return "", fmt.Errorf("read the length of a reply: not a number: %.20q", head)
	}
	if n > uint64(limit) {
		return "", fmt.Errorf("reply of more than %d bytes", limit)
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("read a reply of %d bytes: %w", n, err)
	}
	if b[n] != ',' {
		return "", errors.New("read a reply: no comma after it")
	}
	if n == 0 {
		return "", ErrNoReply
	}
	return string(b[:n]), nil
}
