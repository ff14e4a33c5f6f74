package pool

import (
	"fmt"
	"log/slog"
	"time"

	"postern/internal/evloop"
)

// Autoscaling: every interval the share of busy workers, smoothed, decides whether
// a worker is started ahead of need or ended.
const (
	scaleInterval = 15 * time.Second
	scaleWeight   = 0.25 // of the newest look
	scaleOut      = 0.80
	scaleIn       = 0.30
	scaleOutCool  = 5 * time.Second  // since the last start of any worker
	scaleInCool   = 30 * time.Second // since that and since the last worker ended by this
)

type autoscaler struct {
	enabled bool
	average float64 // share of busy workers among those running
	lastIn  time.Duration
	everIn  bool
	timer   evloop.Timer
}

// StartAutoscale begins to scale.
func (p *Pool) StartAutoscale() {
	p.scale.enabled = true
	p.log.Add(slog.LevelInfo, fmt.Sprintf("Autoscaling enabled: interval=%ds scale_out=%.0f%% scale_in=%.0f%%", scaleInterval/time.Second, scaleOut*100, scaleIn*100))
	p.scale.timer.Do = p.rescale
	p.timers.Start(&p.scale.timer, scaleInterval)
}

// rescale looks at the load and changes the number of workers by at most one.
func (p *Pool) rescale() {
	s := &p.scale
	p.timers.Start(&s.timer, scaleInterval)
	share := 0.0
	if n := p.running(); n > 0 {
		share = float64(p.count[busy]) / float64(n)
	}
	s.average = (1-scaleWeight)*s.average + scaleWeight*share
	now := p.timers.Now()
	sinceStart := now - p.lastStart
	if !p.everBegun {
		sinceStart = scaleInCool + 1
	}
	switch {
	case p.stopping:
	case s.average > scaleOut && p.running()+p.nstarting < p.limits.Max && sinceStart > scaleOutCool:
		p.scaleOut()
	case s.average < scaleIn && p.running() > p.limits.Min && sinceStart > scaleInCool && (!s.everIn || now-s.lastIn > scaleInCool):
		p.scaleIn()
	}
}

func (p *Pool) scaleOut() {
	if len(p.stopped) == 0 || !p.mayStart() {
		return
	}
	w := p.takeSlot()
	p.start(w, nil, fmt.Sprintf("Autoscale: scale-out (ema_busy=%.2f)", p.scale.average))
	p.log.Add(slog.LevelInfo, fmt.Sprintf("Autoscale: scaled out to %d workers (ema_busy=%.2f queued=%d)", p.running()+p.nstarting, p.scale.average, p.queue.len))
}

// scaleIn ends the worker that has been idle longest: the others are warm.
func (p *Pool) scaleIn() {
	resting := p.resting()
	if len(resting) == 0 {
		return
	}
	coldest := resting[len(resting)-1]
	p.scale.lastIn, p.scale.everIn = p.timers.Now(), true
	p.kill(coldest, fmt.Sprintf("Autoscale: scale-in (ema_busy=%.2f)", p.scale.average), false)
	p.log.Add(slog.LevelInfo, fmt.Sprintf("Autoscale: scaled in to %d workers (ema_busy=%.2f)", p.running()-p.count[killed], p.scale.average))
}

// AppendAutoscale appends the reply to "autoscale".
func (p *Pool) AppendAutoscale(b []byte) []byte {
	enabled := 0
	if p.scale.enabled {
		enabled = 1
	}
	return fmt.Appendf(b, "enabled=%d interval=%d ema_busy=%.4f scale_out=%.2f scale_in=%.2f out_cool=%d in_cool=%d ema_alpha=%.4f\n", enabled,
		scaleInterval/time.Second, p.scale.average, scaleOut, scaleIn, scaleOutCool/time.Second, scaleInCool/time.Second, scaleWeight)
}
