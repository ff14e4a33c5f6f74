package main

import (
	"bytes"
	"fmt"

	"postern/internal/mxproto"
	"postern/internal/workdir"
)

// emptier removes what workers leave in directories that a front end of another account has put aside in the spool.
type emptier struct {
	spool string
	turns chan struct{}
	done  uint64 // directories
}

// maxEmptying bounds how many directories are emptied at a time: each has a thread of its own.
const maxEmptying = 4

func newEmptier(spool string) *emptier {
	return &emptier{spool: spool, turns: make(chan struct{}, maxEmptying)}
}

// empty carries out a request to empty a directory, if the line is one.
func (c *client) empty(line []byte) bool {
	e := c.server.emptier
	name, ok := bytes.CutPrefix(line, []byte(mxproto.VerbEmpty+" "))
	if !ok || !c.persistent || e == nil {
		return false
	}
	c.phase = waiting
	dir, log := string(name), c.server.log
	c.atDisk(e.turns, func() func() {
		err := workdir.Empty(e.spool, dir)
		return func() {
			if err != nil {
				text := fmt.Sprintf("%.300q", err.Error()) // with names that a worker chose
				log.Add(levelDebug, "directory not emptied: "+text)
				c.outcome([]byte("error: " + text + "\n"))
				return
			}
			e.done++
			c.outcome([]byte(mxproto.EmptyOK))
		}
	})
	return true
}

// emptied counts the directories that were emptied.
func (s *server) emptied() uint64 {
	if s.emptier == nil {
		return 0
	}
	return s.emptier.done
}
