package listener

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"postern/internal/notify"
)

// A Source is a daemon to listen to.
type Source struct {
	Name string // stands in Event.Source
	Dial func(context.Context) (net.Conn, error)
	Wait time.Duration // for connection and greeting together; 0 is 10 seconds
}

// An Interest says what to listen for.
type Interest struct {
	Letters string // "*" for all
	Classic bool   // do not ask for numbers and snapshot
	Replay  bool   // ask for what came after Since
	Since   uint64
	Run     uint64 // the run of the daemon that Since belongs to, 0 if unknown
}

// line is the interest as it stands on the wire. An original multiplexor reads
// the letters and passes over the rest.
func (in Interest) line() string {
	s := "?" + in.Letters
	if in.Classic {
		return s + "\n"
	}
	s += "+"
	if in.Replay {
		s += "@" + strconv.FormatUint(in.Since, 10)
		if in.Run != 0 {
			s += "/" + strconv.FormatUint(in.Run, 10)
		}
	}
	return s + "\n"
}

// Bounds of what a client accepts and waits for.
const (
	maxServerLine = 4096             // bytes; a longer line is an error
	greetingWait  = 10 * time.Second // for "*OK"
	extendedWait  = time.Second      // for "*EXT"; an original multiplexor stays silent
)

// ErrProtocol says that the other end does not speak this protocol: something
// else than the greeting came first, or a line was too long.
var ErrProtocol = errors.New("not the notification protocol")

// A Conn is one connection to a daemon. It is for one goroutine.
type Conn struct {
	conn    net.Conn
	r       *bufio.Reader
	source  string
	form    form
	pending []Event   // to be returned before anything is read
	settle  time.Time // when silence means an original multiplexor
}

// A form is what is known of the other end.
type form int

const (
	unknown form = iota
	classic
	extended
)

// Connect connects, reads the greeting and says what is of interest. The error
// wraps ErrProtocol or is a *ServerError where that is the cause. When ctx ends
// the connection attempt does, too.
func Connect(ctx context.Context, src Source, in Interest) (*Conn, error) {
	wait := src.Wait
	if wait <= 0 {
		wait = greetingWait
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("no greeting within %v", wait))
	defer cancel()
	conn, err := src.Dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: conn, r: bufio.NewReaderSize(conn, maxServerLine), source: src.Name}
	if in.Classic {
		c.form = classic
	}
	if err := c.greet(ctx, in); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) greet(ctx context.Context, in Interest) error {
	line, err := c.line(ctx, time.Time{})
	if err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	if line != notify.LineOK {
		if _, err := parseControl(line); err != nil {
			return err
		}
		return fmt.Errorf("%w: greeting %.80q", ErrProtocol, line)
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetWriteDeadline(deadline)
	}
	if _, err := io.WriteString(c.conn, in.line()); err != nil {
		return fmt.Errorf("send interest: %w", err)
	}
	c.settle = time.Now().Add(extendedWait)
	if c.form == classic {
		c.pending = append(c.pending, Event{Kind: Up, Time: time.Now()})
	}
	return nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Next returns the next event. The first is of kind Up: from a hub that knows
// the extended form as soon as it answers, from an original multiplexor with
// the first message or after a second of silence. At the end of the connection
// the error is io.EOF or says what happened, as with Connect. After any error
// but that of ctx the client is of no use.
func (c *Conn) Next(ctx context.Context) (Event, error) {
	for {
		if len(c.pending) > 0 {
			e := c.pending[0]
			c.pending = c.pending[1:]
			e.Source = c.source
			return e, nil
		}
		var deadline time.Time
		if c.form == unknown {
			deadline = c.settle
		}
		line, err := c.line(ctx, deadline)
		if errors.Is(err, errSilent) {
			if c.form == unknown && !time.Now().Before(c.settle) {
				c.become(classic)
			}
			continue
		}
		if err != nil {
			return Event{}, err
		}
		if err := c.understand(line); err != nil {
			return Event{}, err
		}
	}
}

// understand turns a line into events.
func (c *Conn) understand(line string) error {
	e, err := parseLine(line, c.form == extended)
	if err != nil {
		return err
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if c.form == unknown && e.Kind != Up {
		c.become(classic) // before its acknowledgement a hub sends nothing
	}
	if e.Kind == Up {
		c.form = extended
	}
	c.pending = append(c.pending, e)
	return nil
}

func (c *Conn) become(f form) {
	c.form = f
	c.pending = append(c.pending, Event{Kind: Up, Time: time.Now()})
}

var errSilent = errors.New("silent")

// line reads one line. If nothing has come by the deadline, which may be zero,
// it fails with errSilent; nothing of a line that has begun by then is lost.
func (c *Conn) line(ctx context.Context, deadline time.Time) (string, error) {
	if !c.buffered() {
		c.conn.SetReadDeadline(deadline)
		stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
		_, err := c.r.Peek(1)
		for err == nil && !c.buffered() && c.r.Buffered() < maxServerLine {
			_, err = c.r.Peek(c.r.Buffered() + 1)
		}
		stop()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			return "", errSilent
		}
		if err != nil {
			return "", c.ended(err)
		}
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", fmt.Errorf("%w: a line of more than %d bytes", ErrProtocol, maxServerLine)
	}
	return string(bytes.TrimSuffix(line, []byte("\n"))), nil
}

// buffered reports whether a whole line has been read ahead.
func (c *Conn) buffered() bool {
	b, _ := c.r.Peek(c.r.Buffered())
	return bytes.IndexByte(b, '\n') >= 0
}

// ended explains the end of the connection.
func (c *Conn) ended(err error) error {
	if err == io.EOF && c.r.Buffered() > 0 {
		return fmt.Errorf("connection ended within a line: %w", io.ErrUnexpectedEOF)
	}
	return err
}
