package upstream

import (
	"fmt"
	"io"
)

// Content gives the writer for the content, once DATA has got its 354. It takes decoded content and sends
// it dot-stuffed; it is best given pieces of 64 KiB.
func (c *Conn) Content() io.Writer { return &c.dot }

// contentWriter takes what the DotWriter encoded.
type contentWriter struct{ c *Conn }

func (w contentWriter) Write(p []byte) (int, error) {
	switch {
	case w.c.err != nil:
		return 0, w.c.err
	case w.c.phase != phaseContent:
		return 0, w.c.fail(fmt.Errorf("%w: content without 354", ErrMisuse), replyProtocol)
	}
	if err := w.c.stream.content(p, w.c.srv.conf.WriteTimeout); err != nil {
		return 0, w.c.failWrite(err)
	}
	return len(p), nil
}

// EndContent sends what is left of the content and the end of data. A server that has already said something
// by then gets no end of data: it cannot have accepted what was not complete (SMG-27). If it refused, the
// error has its reply.
func (c *Conn) EndContent() error {
	switch {
	case c.err != nil:
		return c.err
	case c.phase != phaseContent:
		return c.fail(fmt.Errorf("%w: end of content without 354", ErrMisuse), replyProtocol)
	case len(c.due) > 0:
		return c.fail(fmt.Errorf("%w: end of content with replies due", ErrMisuse), replyProtocol)
	}
	if err := c.quiet(); err != nil {
		return err
	}
	if err := c.dot.Close(); err != nil {
		return err
	}
	if err := c.stream.flush(c.srv.conf.WriteTimeout); err != nil {
		return c.failWrite(err)
	}
	c.phase = phaseEnd
	c.due = append(c.due, due{expect: expectContent})
	c.sent = 1
	return nil
}
