package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// poison remembers the working directories whose scans have ended workers, so that
// one message cannot take down the pool worker by worker.
type poison struct {
	deaths map[string]*victim
	order  []*victim // oldest first
}

type victim struct {
	dir   string
	count int
	since time.Duration
}

const (
	poisonMemory = time.Hour // a message that is tried again later gets another chance
	poisonMost   = 10000     // directories remembered
)

// poisoned says whether a request is a scan that has ended enough workers.
func (p *pool) poisoned(r *request) bool {
	if p.limits.PoisonLimit <= 0 || r.kind != kindScan || len(p.poison.deaths) == 0 {
		return false
	}
	v := p.poison.deaths[r.word(2)]
	if v == nil || v.count < p.limits.PoisonLimit || p.timers.Now()-v.since > poisonMemory {
		return false
	}
	p.log.add(levelError, fmt.Sprintf("%s: not scanned: its working directory %s has ended %d workers", r.queueID(), logWord(v.dir, maxLogPath), v.count))
	return true
}

// noteDeath is told of a request that ended a worker.
func (p *pool) noteDeath(r *request) {
	if p.limits.PoisonLimit <= 0 || r == nil || r.kind != kindScan {
		return
	}
	dir := r.word(2)
	if dir == "" {
		return
	}
	s, now := &p.poison, p.timers.Now()
	if s.deaths == nil {
		s.deaths = map[string]*victim{}
	}
	for len(s.order) > 0 && (len(s.order) >= poisonMost || now-s.order[0].since > poisonMemory) {
		if s.deaths[s.order[0].dir] == s.order[0] {
			delete(s.deaths, s.order[0].dir)
		}
		s.order = s.order[1:]
	}
	v := s.deaths[dir]
	if v == nil {
		v = &victim{dir: dir, since: now}
		s.deaths[dir] = v
		s.order = append(s.order, v)
	}
	if v.count++; v.count == p.limits.PoisonLimit {
		p.log.add(levelError, fmt.Sprintf("%s: the scan of working directory %s has ended %d workers; no other will get it", r.queueID(), logWord(dir, maxLogPath), v.count))
		if p.keepPoison != nil {
			p.keepPoison(dir)
		}
	}
}

// poisonKeeper gives a function that copies a working directory, which must be
// below spool, into the directory keep. It returns at once; report gets the
// outcome later, from another goroutine.
func poisonKeeper(spool, keep string, report func(text string, err error)) func(dir string) {
	return func(dir string) {
		go func() {
			if !reallyBelow(spool, dir) {
				report(fmt.Sprintf("%s is not below %s: not kept", logWord(dir, maxLogPath), spool), nil)
				return
			}
			to := filepath.Join(keep, fmt.Sprintf("%s-%d", filepath.Base(dir), time.Now().UnixNano()))
			if err := copyDir(dir, to); err != nil {
				report("", fmt.Errorf("keep working directory %s: %w", logWord(dir, maxLogPath), rootCause(err)))
				return
			}
			report(fmt.Sprintf("working directory %s kept as %s", logWord(dir, maxLogPath), logWord(to, maxLogPath)), nil)
		}()
	}
}

// copyDir copies a directory without following links out of it.
func copyDir(from, to string) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return os.CopyFS(to, root.FS())
}
