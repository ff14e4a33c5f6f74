package main

// look is work at the disk that a client waits for.
type look struct{ c *client } // nil: it waits no more

// atDisk has work done outside the loop, no more at a time than turns has room for. What it gives is called on the loop,
// unless the client waits no more.
func (c *client) atDisk(turns chan struct{}, work func() (then func())) {
	l, loop := &look{c}, c.server.loop
	c.look = l
	c.server.loop.Timers.Start(&c.timer, c.server.lookTimeout)
	go func() {
		turns <- struct{}{}
		then := work()
		loop.Post(func() { l.done(then) })
		<-turns
	}()
}

// done goes on with what the client waited for.
func (l *look) done(then func()) {
	c := l.c
	if c == nil {
		return
	}
	c.endLook()
	if c.gone {
		c.close()
		return
	}
	then()
}

// endLook makes the client wait no more.
func (c *client) endLook() {
	c.look.c, c.look = nil, nil
	c.server.loop.Timers.Stop(&c.timer)
}
