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
func (s *session) doBdat(arg string) {
	size, last, ok := parseChunk(arg)
	if !ok {
		s.close(gateSync, reply(501, "5.5.4", "Syntax: BDAT size [LAST]")) // nobody knows where commands go on
		return
	}
	if !s.client.esmtp {
		s.close(gateSync, reply(503, "5.5.1", "Say EHLO first"))
		return
	}
	tx := s.tx
	if tx == nil {
		s.skipChunk(size)
		s.fail(reply(503, "5.5.1", "Give a sender first"))
		return
	}
	if tx.chunks == nil {
		out, ready := s.prepareContent(tx)
		if !ready {
			s.skipChunk(size)
			s.dropTransaction()
			return
		}
		tx.chunks = &chunked{out: out, receiver: s.newReceiver(tx, out), decoder: smtp.DotDecoder{
			Reject: s.strict, MaxLine: s.conf.MaxLineLength, Chunks: true,
		}}
	}
	s.status("DATA")
	s.chunk(tx, size, last)
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
func (s *session) chunk(tx *transaction, size int64, last bool) {
	c := tx.chunks
	if err := s.readChunk(c, size); err != nil {
		s.contentLost(tx, c.out, c.receiver, err)
		return
	}
	err := c.decoder.Violation()
	if last {
		err = c.decoder.Finish()
	}
	if err != nil {
		s.violated(c.receiver, err)
	}
	if last || c.receiver.refusal != nil {
		s.finishMessage(tx, c.out, c.receiver)
		return
	}
	s.say(reply(250, "2.0.0", strconv.FormatInt(size, 10)+" octets received"))
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

// skipChunk reads a chunk that nobody wants.
func (s *session) skipChunk(size int64) {
	r := &receiver{pace: s.newReceiver(nil, nil).pace, refusal: &smtp.Reply{}}
	for size > 0 {
		window, err := s.contentWindow(r)
		n := min(int64(len(window)), size)
		if err == nil {
			s.conn.Discard(int(n))
			size -= n
			err = s.take(r, nil, int(n))
		}
		if err != nil {
			s.closing = true
			return
		}
	}
}
