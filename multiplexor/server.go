package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"syscall"
	"time"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/multiplexor/pool"
)

// server answers the connections of request, status and map sockets.
type server struct {
	loop        *evloop.Loop
	pool        *pool.Pool
	log         *logQueue
	name        string // of the version answer
	began       time.Time
	timeout     time.Duration // for a request line to come, and for a reply to go
	diskTimeout time.Duration // for work at the disk
	maxLine     int           // bytes of a request line without its LF
	reread      func()
	usage       bool        // workerinfo tells memory and CPU
	guard       *spoolGuard // nil: scans may be of any directory
	emptier     *emptier

	commands map[string]builtin
	scratch  []byte // for replies

	endpoints map[string]*endpoint // by the name of the setting
	spare     *client              // closed ones, for use again
}

// connections counts those that are open, on all sockets.
func (s *server) connections() int {
	n := 0
	for _, d := range s.endpoints {
		n += d.open
	}
	return n
}

// endpoint is one kind of connection a server has.
type endpoint struct {
	server     *server
	protocol   *protocol
	restricted bool
	open       int // connections
	limit      int
	users      []uint32       // who may connect to a UNIX socket; empty: all
	strangers  pool.LineLimit // for the log
}

// knows asks the kernel who is at the other end of a UNIX socket. TCP peers are not
// asked: they are a matter of the address listened on.
func (d *endpoint) knows(fd int) bool {
	if len(d.users) == 0 {
		return true
	}
	peer, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return false
	}
	const nobody = math.MaxUint32 // what is said of TCP peers
	if peer.Uid == nobody || slices.Contains(d.users, peer.Uid) {
		return true
	}
	if log, _ := d.strangers.Pass(d.server.loop.Now()); log {
		d.server.log.Add(levelWarning, fmt.Sprintf("connection of user %d (pid %d) refused", peer.Uid, peer.Pid))
	}
	return false
}

// protocol is what requests and answers look like on a connection.
type protocol struct {
	persistent bool // connections are so from the start: framed replies, any number of requests
	ahead      int  // bytes that a persistent connection may send ahead of the answers

	// take carries out the request that b begins with, and returns how many bytes that is; 0 if it is not complete.
	take    func(c *client, b []byte) int
	answer  func(line []byte) []byte // of a worker, as the client gets it
	failure func(s *server, why pool.Failure) []byte

	// What is said to who may not connect, to who is one too many, and of a request that the connection ends within;
	// "" for nothing.
	notAllowed, tooMany, unfinished string
}

// maxRestricted is how many connections may be open on the status socket: anyone
// can connect there.
const maxRestricted = 1000

// admit makes a new descriptor a client.
func (d *endpoint) admit(fd int) {
	s := d.server
	switch {
	case !d.knows(fd):
		s.refuseConnection(fd, d.protocol.notAllowed)
		return
	case d.open >= d.limit:
		s.refuseConnection(fd, d.protocol.tooMany)
		return
	}
	c := s.spare
	if c == nil {
		c = new(client)
		c.timer.Do = c.expired
		c.again = c.resume
	} else {
		s.spare = c.nextSpare
		c.nextSpare = nil
	}
	d.open++
	c.server, c.endpoint = s, d
	c.phase, c.persistent, c.tooLong, c.gone, c.paused, c.over = reading, d.protocol.persistent, false, false, false, false
	c.stream.Open(s.loop, fd, c)
	c.stream.ReadNow()
	if c.stream.IsOpen() && (c.phase == reading || c.persistent && !c.paused) {
		// A persistent one may have sent its first requests along with the hello.
		c.wait()
	}
}

// refuseConnection is for connections that are not taken. The text fits into any
// socket's buffer, so that nothing has to wait.
func (s *server) refuseConnection(fd int, text string) {
	if text != "" {
		var b [4096]byte
		_, _ = syscall.Read(fd, b[:]) // closing with something unread would reset the connection
		_, _ = syscall.Write(fd, []byte(text))
	}
	s.loop.CloseFD(fd)
}

// clientPhase is what a connection waits for.
type clientPhase int8

const (
	reading  clientPhase = iota // for a line
	waiting                     // for a worker
	replying                    // for room for the reply, to close after it
	closed
)

// client is one connection. It is the asker of its own request.
type client struct {
	server   *server
	endpoint *endpoint
	stream   evloop.Stream
	timer    evloop.Timer
	phase    clientPhase
	req      pool.Request
	work     *diskWork // that it waits for, before its request goes to the pool

	tooLong    bool // the line is being skipped up to its LF
	persistent bool // as the protocol is, or hello 2 was said
	paused     bool // not reading, because too much waits
	gone       bool // the other side has gone while a worker was busy for it
	over       bool // it sends no more requests, and waits for what it has asked for
	again      func()
	out        []byte // of persistent connections: scratch for frames
	nextSpare  *client
}

// wait watches for the rest of a line.
func (c *client) wait() {
	if err := c.stream.Watch(true); err != nil {
		c.close()
		return
	}
	if !c.persistent {
		c.server.loop.Timers.Start(&c.timer, c.server.timeout)
	}
}

// expired is the end of the time for a line or a reply, or for a lookup.
func (c *client) expired() {
	if c.work != nil {
		c.endWork()
		c.Failed(pool.FailTimeout)
		return
	}
	c.close()
}

// Input takes requests.
func (c *client) Input(_ *evloop.Stream, b []byte) (taken int) {
	for c.phase == reading {
		n := c.endpoint.protocol.take(c, b[taken:])
		if n == 0 {
			return taken
		}
		taken += n
	}
	switch {
	case !c.persistent:
		return len(b) // what follows the first line is nothing to us
	case len(b)-taken > c.endpoint.protocol.ahead && c.stream.IsOpen():
		c.paused = true
		_ = c.stream.Watch(false) // taking away what was asked for cannot fail
	}
	return taken
}

// maxAhead bounds what a persistent connection may send ahead of the answers, in
// request lines of the longest kind.
const maxAhead = 4

// requestLines is the protocol of request and status sockets: lines of at most so many bytes, the answers as they are,
// and one request for each connection until hello 2 was said.
func requestLines(most int) *protocol {
	return &protocol{
		ahead:      maxAhead * most,
		take:       takeLine,
		answer:     func(line []byte) []byte { return line },
		failure:    func(s *server, why pool.Failure) []byte { return []byte(s.pool.FailureText(why)) },
		notAllowed: mxproto.NotAllowed,
		tooMany:    mxproto.TooMany,
		unfinished: textUnfinished,
	}
}

// takeLine carries out the line that b begins with.
func takeLine(c *client, b []byte) (taken int) {
	i := bytes.IndexByte(b, '\n')
	if i >= 0 {
		c.line(b[:i])
		return i + 1
	}
	if c.tooLong || len(b) > c.server.maxLine+1 { // one more for CR
		c.tooLong = true
		return len(b)
	}
	return 0
}

// line carries out one request.
func (c *client) line(line []byte) {
	tooLong := c.tooLong
	c.tooLong = false
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case tooLong || len(line) > c.server.maxLine:
		if c.endpoint.restricted {
			c.reply([]byte(textPrivileged))
		} else {
			c.server.log.event(levelDebug, "doWorkerCommand: Command too long")
			c.reply([]byte(textTooLong))
		}
	case !c.persistent && string(line) == mxproto.Hello && !c.endpoint.restricted:
		c.persistent = true
		c.server.loop.Timers.Stop(&c.timer)
		if err := c.stream.Write([]byte(mxproto.HelloOK)); err != nil {
			c.close()
		}
	default:
		c.command(line)
	}
}

// dispatch hands a line to the pool.
func (c *client) dispatch(line []byte) {
	if i := bytes.IndexByte(line, 0); i >= 0 {
		line = line[:i]
	}
	c.phase = waiting
	p := c.server.pool
	c.server.loop.Timers.Stop(&c.timer)
	if !c.persistent {
		// A classic client has said all it has to say; it may even have closed its
		// half. Nobody looks at it until the answer is there.
		_ = c.stream.Watch(false)
	}
	c.req.Set(line, pool.FromClient, c)
	if c.server.guard != nil {
		c.guarded()
		return
	}
	p.Submit(&c.req)
}

// Answered is the worker's answer.
func (c *client) Answered(line []byte) { c.outcome(c.endpoint.protocol.answer(line)) }

// Failed is the end of a request without an answer.
func (c *client) Failed(why pool.Failure) { c.outcome(c.endpoint.protocol.failure(c.server, why)) }

func (c *client) outcome(reply []byte) {
	if c.gone {
		c.close()
		return
	}
	c.phase = reading
	c.reply(reply)
	if c.persistent && c.stream.IsOpen() {
		// What was sent ahead is looked at when the worker has been put back.
		c.server.loop.Later(c.again)
	}
}

// reply sends a whole reply. A classic connection ends with it.
func (c *client) reply(b []byte) {
	if c.persistent {
		c.out = mxproto.AppendFrame(c.out[:0], b)
		if err := c.stream.Write(c.out); err != nil {
			c.close()
			return
		}
		if c.stream.Pending() > 0 {
			// No further request until this reply has been taken.
			c.phase = replying
			c.server.loop.Timers.Start(&c.timer, c.server.timeout)
		}
		return
	}
	c.phase = replying
	c.server.loop.Timers.Stop(&c.timer)
	if err := c.stream.Write(b); err != nil || c.stream.Pending() == 0 {
		c.close()
		return
	}
	_ = c.stream.Watch(false)
	c.server.loop.Timers.Start(&c.timer, c.server.timeout)
}

// resume goes on with a persistent connection after an answer.
func (c *client) resume() {
	if !c.persistent || c.phase != reading || !c.stream.IsOpen() {
		return
	}
	c.stream.Rescan()
	switch {
	case c.phase != reading || !c.stream.IsOpen():
	case c.over:
		c.finish()
	case c.paused:
		c.paused = false
		if err := c.stream.Watch(true); err != nil {
			c.close()
		}
	}
}

// finish ends a persistent connection over which no request comes any more, when
// all were answered.
func (c *client) finish() {
	if text := c.endpoint.protocol.unfinished; text != "" && (len(c.stream.Rest()) > 0 || c.tooLong) {
		c.reply([]byte(text))
	}
	c.persistent = false // it ends when that is sent
	if c.stream.Pending() == 0 {
		c.close()
	}
}

// Flushed: a reply that had to wait has been sent.
func (c *client) Flushed(_ *evloop.Stream, err error) {
	c.server.loop.Timers.Stop(&c.timer)
	if err != nil || !c.persistent {
		c.close()
		return
	}
	if c.phase == replying {
		c.phase = reading
		c.resume()
	}
}

// Ended: the other side has closed, or its half. A line without LF is not carried
// out: nobody knows what it would have become.
func (c *client) Ended(s *evloop.Stream, err error) {
	switch {
	case c.persistent && err == io.EOF && !s.HungUp():
		c.over = true
		c.resume()
	case c.phase == waiting:
		// Only persistent connections are watched while a worker is busy for them.
		c.gone = true
		if c.server.pool.Withdraw(&c.req) {
			c.close()
		}
	case c.phase == reading && err == io.EOF && !c.persistent && (len(s.Rest()) > 0 || c.tooLong):
		c.reply([]byte(textUnfinished))
	case c.phase == reading && c.endpoint.restricted && err == io.EOF && !c.persistent:
		c.reply([]byte(textPrivileged))
	default:
		c.close()
	}
}

func (c *client) close() {
	if c.phase == closed {
		return
	}
	c.phase = closed
	c.server.loop.Timers.Stop(&c.timer)
	c.stream.Close()
	c.endpoint.open--
	c.req.Trim(maxSpareLine)
	c.nextSpare = c.server.spare
	c.server.spare = c
}

// maxSpareLine bounds what a closed client keeps of its buffer.
const maxSpareLine = 4096
