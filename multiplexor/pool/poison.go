package pool

import (
	"fmt"
	"log/slog"
	"time"
)

// poison remembers the working directories whose scans have ended workers, so that
// one message cannot take down the pool worker by worker.
type poison struct {
	deaths map[string]*suspect
	order  []*suspect // oldest first
}

type suspect struct {
	dir   string
	count int
	since time.Duration
}

const (
	poisonMemory = time.Hour // a message that is tried again later gets another chance
	poisonMost   = 10000     // directories remembered
)

// poisoned reports whether a request is a scan that has ended enough workers.
func (p *Pool) poisoned(r *Request) bool {
	if p.limits.PoisonLimit <= 0 || r.Kind != KindScan || len(p.poison.deaths) == 0 {
		return false
	}
	v := p.poison.deaths[r.Word(2)]
	if v == nil || v.count < p.limits.PoisonLimit || p.timers.Now()-v.since > poisonMemory {
		return false
	}
	p.log.Add(slog.LevelError, fmt.Sprintf("%s: not scanned: its working directory %s has ended %d workers", r.queueID(), LogPath(v.dir), v.count))
	return true
}

// noteDeath is told of a request that ended a worker.
func (p *Pool) noteDeath(r *Request) {
	if p.limits.PoisonLimit <= 0 || r == nil || r.Kind != KindScan {
		return
	}
	dir := r.Word(2)
	if dir == "" {
		return
	}
	s, now := &p.poison, p.timers.Now()
	if s.deaths == nil {
		s.deaths = map[string]*suspect{}
	}
	for len(s.order) > 0 && (len(s.order) >= poisonMost || now-s.order[0].since > poisonMemory) {
		if s.deaths[s.order[0].dir] == s.order[0] {
			delete(s.deaths, s.order[0].dir)
		}
		s.order = s.order[1:]
	}
	v := s.deaths[dir]
	if v == nil {
		v = &suspect{dir: dir, since: now}
		s.deaths[dir] = v
		s.order = append(s.order, v)
	}
	if v.count++; v.count == p.limits.PoisonLimit {
		p.log.Add(slog.LevelError, fmt.Sprintf("%s: the scan of working directory %s has ended %d workers; no other will get it", r.queueID(), LogPath(dir), v.count))
		if p.KeepPoison != nil {
			p.KeepPoison(dir)
		}
	}
}
