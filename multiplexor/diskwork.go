package main

// diskWork is work at the disk that a client waits for.
type diskWork struct{ c *client } // nil: it waits no more

// atDisk has work done outside the loop, no more at a time than turns has room for. What it gives is called on the loop,
// unless the client waits no more.
func (c *client) atDisk(turns chan struct{}, work func() (then func())) {
	l, loop := &diskWork{c}, c.server.loop
	c.work = l
	c.server.loop.Timers.Start(&c.timer, c.server.diskTimeout)
	go func() {
		turns <- struct{}{}
		then := work()
		loop.Post(func() { l.done(then) })
		<-turns
	}()
}

// done goes on with what the client waited for.
func (l *diskWork) done(then func()) {
	c := l.c
	if c == nil {
		return
	}
	c.endWork()
	if c.gone {
		c.close()
		return
	}
	then()
}

// endWork makes the client wait no more.
func (c *client) endWork() {
	c.work.c, c.work = nil, nil
	c.server.loop.Timers.Stop(&c.timer)
}
