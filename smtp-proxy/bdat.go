package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"postern/internal/smtp"
)

// chunked is a message that comes by BDAT: RFC 3030.
type chunked struct {
	out      sink
	receiver *receiver
	decoder  smtp.DotDecoder
}

// doBdat is BDAT. The octets of a chunk are read whatever becomes of it: they must never be taken for
// commands.
func (s *session) doBdat(arg string) outcome {
	size, last, ok := parseChunk(arg)
	switch {
	case !ok: // nobody knows where commands go on
		return closed(gateSync, reply(501, "5.5.4", "Syntax: BDAT size [LAST]"))
	case !s.client.esmtp:
		return closed(gateSync, reply(503, "5.5.1", "Say EHLO first"))
	case s.tx == nil:
		return s.skipChunk(size, failed(reply(503, "5.5.1", "Give a sender first")))
	}
	tx := s.tx
	if tx.chunks == nil {
		out, o := s.prepareContent(tx)
		if out == nil {
			return s.skipChunk(size, o.ending())
		}
		tx.chunks = &chunked{out: out, receiver: s.newReceiver(out), decoder: smtp.DotDecoder{
			Reject: s.strict(), MaxLine: s.conf.MaxLineLength, Chunks: true,
		}}
	}
	s.status("DATA")
	return s.chunk(tx, size, last)
}

// parseChunk reads "SIZE [LAST]".
func parseChunk(arg string) (size int64, last, ok bool) {
	number, word, more := strings.Cut(arg, " ")
	if more && !strings.EqualFold(strings.Trim(word, " "), "LAST") {
		return 0, false, false
	}
	if number == "" || len(number) > 19 || number[0] == '-' || number[0] == '+' {
		return 0, false, false
	}
	size, err := strconv.ParseInt(number, 10, 64)
	return size, more, err == nil
}

// chunk reads one chunk and answers it.
func (s *session) chunk(tx *transaction, size int64, last bool) outcome {
	c := tx.chunks
	if err := s.readChunk(c, size); err != nil {
		return s.contentLost(tx, c.out, c.receiver, err)
	}
	err := c.decoder.Violation()
	if last {
		err = c.decoder.Finish()
	}
	if err != nil {
		c.receiver.violated(err)
	}
	if last || c.receiver.refusal != nil {
		return s.finishMessage(tx, c.out, c.receiver)
	}
	return done(reply(250, "2.0.0", strconv.FormatInt(size, 10)+" octets received"))
}

func (s *session) readChunk(c *chunked, size int64) error {
	// Chunks that came with their commands are never waited for; all the same a message has its time.
	now := time.Now()
	switch until, err := c.receiver.pace.next(now, c.receiver.raw); {
	case err != nil:
		return err
	case !until.After(now):
		return os.ErrDeadlineExceeded
	}
	for size > 0 {
		window, err := s.contentWindow(c.receiver)
		if err != nil {
			return err
		}
		if int64(len(window)) > size {
			window = window[:size]
		}
		n, _, err := s.decode(c.receiver, &c.decoder, window)
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// skipChunk reads a chunk that nobody wants; it returns its outcome, with which the session ends if it did
// not come.
func (s *session) skipChunk(size int64, o outcome) outcome {
	r := &receiver{pace: newPace(s.conf, time.Now()), refusal: &smtp.Reply{}}
	for size > 0 {
		window, err := s.contentWindow(r)
		n := min(int64(len(window)), size)
		if err == nil {
			s.conn.Discard(int(n))
			size -= n
			err = s.take(r, nil, int(n))
		}
		if err != nil {
			return o.closing()
		}
	}
	return o
}
