package main

import (
	"path/filepath"
	"strings"
)

// textOutside is the answer to a scan of a directory that is not ours.
const textOutside = "error: Working directory is not below the spool directory\n"

// below says whether dir is a clean absolute path below spool. It does not look at
// the disk.
func below(spool, dir string) bool {
	return filepath.Clean(dir) == dir && strings.HasPrefix(dir, strings.TrimSuffix(spool, "/")+"/")
}

// reallyBelow says whether dir is below spool when all symbolic links are followed.
// It looks at the disk and may block.
func reallyBelow(spool, dir string) bool {
	realDir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	realSpool, err := filepath.EvalSymlinks(spool)
	return err == nil && below(realSpool, realDir)
}

// dispatchScan hands a scan to the pool if its directory is below the spool. The
// disk is looked at outside the loop.
func (c *client) dispatchScan() {
	s := c.server
	dir := c.req.word(2)
	if !below(s.spool, dir) {
		c.outcome([]byte(textOutside))
		return
	}
	go func() {
		fine := reallyBelow(s.spool, dir)
		s.loop.Post(func() {
			switch {
			case c.gone:
				c.close()
			case !fine:
				c.outcome([]byte(textOutside))
			default:
				s.pool.submit(&c.req)
			}
		})
	}()
}
