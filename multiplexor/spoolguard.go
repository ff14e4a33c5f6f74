package main

import (
	"bytes"
	"path/filepath"
	"strings"

	"postern/internal/mxproto"
	"postern/internal/percent"
	"postern/multiplexor/pool"
)

// textOutside is the answer to a scan of a directory that is not ours.
const textOutside = "error: Working directory is not below the spool directory\n"

// below reports whether dir is a clean absolute path below spool. It does not look at
// the disk.
func below(spool, dir string) bool {
	return filepath.Clean(dir) == dir && strings.HasPrefix(dir, strings.TrimSuffix(spool, "/")+"/")
}

// reallyBelow reports whether dir is below spool when all symbolic links are followed.
// It looks at the disk and may block.
func reallyBelow(spool, dir string) bool {
	realDir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	realSpool, err := filepath.EvalSymlinks(spool)
	return err == nil && below(realSpool, realDir)
}

// scanned returns the directory that a worker would scan for the line; ok is false if
// it would scan none. Workers are lenient: mimedefang.pl takes any white space
// between words, and the verb in any case and percent-encoded.
func scanned(line []byte) (dir string, ok bool) {
	first := bytes.TrimLeft(line, perlSpace)
	if len(first) == 0 || !strings.ContainsRune("sS%", rune(first[0])) {
		return "", false // nearly all lines that are none
	}
	words := bytes.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(perlSpace, r) })
	if !strings.EqualFold(percent.Decode(string(words[0])), mxproto.VerbScan) {
		return "", false
	}
	if len(words) < 3 {
		return "", true
	}
	return percent.Decode(string(words[2])), true
}

// perlSpace is what separates words for a Perl program.
const perlSpace = " \t\n\v\f\r"

// spoolGuard refuses scans of directories that are not below the spool.
type spoolGuard struct {
	spool, real string // as it was given, and without symbolic links
	dir         int    // the spool, open
	turns       chan struct{}
}

// maxTurns bounds how many lookups may wait for the disk at a time: each has a
// thread of its own.
const maxTurns = 64

// refuses reports whether the line is a scan of a directory that is certainly not below
// the spool, and unsure whether the disk has to be asked for dir.
func (g *spoolGuard) refuses(r *pool.Request) (refused bool, unsure string) {
	dir, ok := scanned(r.Bare())
	if !ok {
		return false, ""
	}
	if r.Kind == pool.KindScan && r.Word(2) != dir {
		return true, "" // nobody who means well puts white space there
	}
	for _, spool := range []string{g.spool, g.real} {
		if !below(spool, dir) {
			continue
		}
		if g.quick(strings.TrimPrefix(dir, strings.TrimSuffix(spool, "/")+"/")) {
			return false, ""
		}
		return false, dir
	}
	return true, ""
}

// guarded hands a request to the pool unless the guard refuses it. The disk is
// looked at outside the loop.
func (c *client) guarded() {
	s := c.server
	refused, unsure := s.guard.refuses(&c.req)
	switch {
	case refused:
		c.outcome([]byte(textOutside))
	case unsure == "":
		s.pool.Submit(&c.req)
	default:
		c.atDisk(s.guard.turns, func() func() {
			if !reallyBelow(s.guard.real, unsure) {
				return func() { c.outcome([]byte(textOutside)) }
			}
			return func() { s.pool.Submit(&c.req) }
		})
	}
}
