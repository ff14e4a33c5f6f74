package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"postern/internal/mxproto"
	"postern/internal/sockspec"
)

// maxReply bounds a reply in bytes: the list of workers of the largest pool is
// far below it.
const maxReply = 16 << 20

// client asks one multiplexor, with a connection for each request, so that it
// gets on with the original, too.
type client struct {
	dial    func(context.Context) (net.Conn, error)
	timeout time.Duration // for a request from start to end; 0 = none

	maxUsages int  // of how many workers a snapshot has what they use
	noUsage   bool // it does not tell
}

// ask sends a line and gives the whole reply. An empty reply is no error here:
// to some questions it is the answer.
func (c *client) ask(ctx context.Context, line string) (string, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v", c.timeout))
		defer cancel()
	}
	mx := mxproto.Client{Dial: c.dial, MaxReply: maxReply}
	reply, err := mx.Ask(ctx, line)
	if errors.Is(err, mxproto.ErrNoReply) {
		return "", nil
	}
	return reply, err
}

// connectError is a failure to reach the multiplexor at all.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

func dialSpec(spec sockspec.Spec) func(context.Context) (net.Conn, error) {
	return dialWith(spec.Dial)
}

// dialPath is for the original's -s: whatever it says is a path, also if it looks
// like another form, or begins with the '@' that Go takes for an abstract name.
func dialPath(path string) func(context.Context) (net.Conn, error) {
	if strings.HasPrefix(path, "@") {
		path = "./" + path
	}
	return dialWith(func(ctx context.Context) (net.Conn, error) {
		if len(path) > sockspec.MaxPath {
			return nil, syscall.ENAMETOOLONG
		}
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

// dialWith connects. A UNIX socket whose backlog is full answers a non-blocking
// connect with EAGAIN, unix(7), where a blocking one, such as the original's,
// waits: so do we.
func dialWith(dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
			conn, err := dial(ctx)
			switch {
			case err == nil:
				return conn, nil
			case errors.Is(err, context.DeadlineExceeded) && hasDeadline(ctx):
				<-ctx.Done() // in this very moment
				return nil, context.Cause(ctx)
			case !errors.Is(err, syscall.EAGAIN):
				return nil, &connectError{err}
			}
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(pause):
			}
		}
	}
}

func hasDeadline(ctx context.Context) bool {
	_, ok := ctx.Deadline()
	return ok
}

// errorLine words an error as md-mx-ctrl does, which monitors look for.
func errorLine(err error) string { return "ERROR MXCommand: " + explain(err) + "\n" }

func explain(err error) string {
	const question = ": Is multiplexor running?"
	var connect *connectError
	var errno syscall.Errno
	refused := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
	switch numbered := errors.As(err, &errno); {
	case errors.As(err, &connect) && refused:
		return "connect: " + reason(errno)
	case errors.As(err, &connect) && numbered:
		return "connect: " + reason(errno) + question
	case errors.As(err, &connect):
		return connect.Error() + question
	case errors.Is(err, syscall.EPIPE):
		return "write: " + reason(errno) + question
	case errors.Is(err, syscall.ECONNRESET):
		return "read: " + reason(errno) + question
	}
	return err.Error()
}

// reason returns the text of an error number as strerror(3) does: Go's, with a
// capital letter.
func reason(errno syscall.Errno) string {
	r, size := utf8.DecodeRuneInString(errno.Error())
	return string(unicode.ToUpper(r)) + errno.Error()[size:]
}
