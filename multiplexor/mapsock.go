package main

import (
	"bytes"
	"io"

	"postern/internal/evloop"
	"postern/internal/mxproto"
	"postern/internal/percent"
	"postern/multiplexor/pool"
)

// mapReplies are the answers to lookups that no worker answered. A broken worker
// and one that takes too long are told alike, as the original does.
var mapReplies = [pool.Failures]string{
	pool.FailNoFree:     "TEMP No free workers",
	pool.FailStart:      "TEMP Unable to activate worker",
	pool.FailQueue:      "TEMP No free workers",
	pool.FailTalk:       "TEMP Error talking to worker process",
	pool.FailDied:       "TEMP Busy timeout on worker",
	pool.FailTimeout:    "TEMP Busy timeout on worker",
	pool.FailOverloaded: "TEMP Busy timeout on worker",
	pool.FailDomain:     "TEMP No free workers",
	pool.FailAnswer:     "TEMP Busy timeout on worker",
	pool.FailPoison:     "TEMP No free workers",
	pool.FailShutdown:   "TEMP No free workers",
}

const (
	mapNoComma   = "PERM Netstring missing terminating comma"
	mapBadFormat = "PERM Invalid request format"
)

// maxMapAhead bounds what a client of the map socket may send ahead of replies.
const maxMapAhead = 2 * (maxNetstring + maxNetstringLength + 2)

// mapClient is a connection of the map socket: netstrings both ways, one lookup
// after the other.
type mapClient struct {
	server   *server
	endpoint *endpoint
	stream   evloop.Stream
	timer    evloop.Timer // while a reply waits for room
	phase    clientPhase
	paused   bool
	gone     bool // the client has
	over     bool // it asks for no more, and waits for what it has asked for
	req      pool.Request
	out      []byte
}

func (d *endpoint) admitMap(fd int) {
	if *d.open >= d.limit || !d.knows(fd) {
		d.server.loop.CloseFD(fd) // there is no reply that a client would read without having asked
		return
	}
	*d.open++
	c := &mapClient{server: d.server, endpoint: d}
	c.timer.Do = c.close
	c.stream.Open(d.server.loop, fd, c)
	if err := c.stream.Watch(true); err != nil {
		c.close()
	}
}

// Input takes netstrings.
func (c *mapClient) Input(_ *evloop.Stream, b []byte) (taken int) {
	for c.phase == reading {
		text, size, comma, err := readNetstring(b[taken:])
		if err != nil {
			c.close()
			return len(b)
		}
		if size == 0 {
			return taken
		}
		taken += size
		c.lookup(text, comma)
	}
	if len(b)-taken > maxMapAhead && c.stream.IsOpen() {
		c.paused = true
		_ = c.stream.Watch(false) // taking away what was asked for cannot fail
	}
	return taken
}

// lookup carries out one request.
func (c *mapClient) lookup(text []byte, comma bool) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	name, key, found := bytes.Cut(text, []byte(" "))
	switch {
	case !comma:
		c.reply([]byte(mapNoComma))
	case !found:
		c.reply([]byte(mapBadFormat))
	default:
		c.phase = waiting
		c.req.Set([]byte("map "+percent.Join(string(name), string(key))), pool.FromMap, c)
		c.server.pool.Submit(&c.req)
	}
}

// Answered sends the worker's line, decoded as a whole.
func (c *mapClient) Answered(line []byte) {
	c.outcome([]byte(percent.Decode(string(bytes.TrimSuffix(line, []byte("\n"))))))
}

func (c *mapClient) Failed(why pool.Failure) {
	if why == pool.FailStart {
		c.server.log.Add(levelWarning, "map command failed: No free workers")
	}
	c.outcome([]byte(mapReplies[why]))
}

func (c *mapClient) outcome(text []byte) {
	switch {
	case c.phase == closed:
		return // it has left with an error meanwhile
	case c.gone:
		c.close()
		return
	}
	c.phase = reading
	c.reply(text)
	if c.stream.IsOpen() {
		c.server.loop.Later(c.resume)
	}
}

func (c *mapClient) reply(text []byte) {
	c.out = mxproto.AppendFrame(c.out[:0], text)
	if err := c.stream.Write(c.out); err != nil {
		c.close()
		return
	}
	if c.stream.Pending() > 0 {
		c.phase = replying
		c.server.loop.Timers.Start(&c.timer, c.server.timeout)
	}
}

func (c *mapClient) resume() {
	if c.phase != reading {
		return
	}
	c.stream.Rescan()
	switch {
	case c.phase != reading:
	case c.over:
		c.close()
	case c.paused:
		c.paused = false
		if err := c.stream.Watch(true); err != nil {
			c.close()
		}
	}
}

// Flushed: a reply that had to wait has been sent.
func (c *mapClient) Flushed(_ *evloop.Stream, err error) {
	c.server.loop.Timers.Stop(&c.timer)
	if err != nil {
		c.close()
		return
	}
	if c.phase == replying {
		c.phase = reading
		c.resume()
	}
}

// Ended: the client has closed, or its half; a lookup under way is finished, and
// those that were sent ahead are answered if someone still reads.
func (c *mapClient) Ended(s *evloop.Stream, err error) {
	switch {
	case err == io.EOF && !s.HungUp():
		c.over = true
		c.resume()
	case c.phase == waiting && err == io.EOF:
		c.gone = true
	default:
		c.close()
	}
}

func (c *mapClient) close() {
	if c.phase == closed {
		return
	}
	c.phase = closed
	c.server.loop.Timers.Stop(&c.timer)
	c.stream.Close()
	*c.endpoint.open--
}
