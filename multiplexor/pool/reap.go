package pool

import (
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"postern/internal/notify"
)

const (
	backoffFirst = 250 * time.Millisecond
	backoffMost  = 30 * time.Second
)

// diedYoung counts starts that came to nothing, and makes the next one wait. how says
// why, the cause first.
func (p *Pool) diedYoung(w *worker, how string) {
	if !w.working {
		p.setFault(how)
	}
	p.deaths++
	if p.deaths < 2 {
		return
	}
	wait := backoffMost
	if shift := p.deaths - 2; shift < 8 {
		wait = min(backoffFirst<<shift, backoffMost)
	}
	p.retryAt = p.timers.Now() + wait
	p.log.Add(slog.LevelError, fmt.Sprintf("%s: %d workers in a row ended before they had answered anything; starting no other for %v", how, p.deaths, wait))
	p.timers.Start(&p.gapTimer, wait)
}

// young reports whether a worker that is of no use has never been of any: then the
// program or its rules are broken.
func (p *Pool) young(w *worker) bool {
	return !p.stopping && w.answers == 0 && p.timers.Now()-w.started < youngAge
}

// Exited is told when the process of w is gone.
func (w *worker) Exited(e Exit) {
	p := w.pool
	w.disarm()
	p.idle.remove(w)
	expected := w.state == killed
	how := e.words()
	p.cause = w.because(how)
	scan := p.fail(w, FailDied)
	young := !expected && p.young(w)
	if young {
		p.diedYoung(w, p.cause)
	}
	if w.state == busy {
		p.setState(w, idle)
		p.endScan(w, scan)
	}
	if !expected {
		p.counters.died++
		p.publish(notify.LetterDied, "")
	}
	p.logReap(w, e, expected)
	w.child.Release()
	w.child = nil
	w.dying, w.greeting = false, false
	p.setState(w, stopped)
	p.stopped = append(p.stopped, w)
	p.loads.reaped(p.timers.Now())
	p.statistic(w, "ReapWorker", "")
	p.fillLater()
	p.serveQueue()
	p.reload.goOn()
	p.checkGone()
}

// words says how a process ended.
func (e Exit) words() string {
	switch {
	case e.Lost:
		return "exited"
	case e.Signal == 0:
		return fmt.Sprintf("exited with status %d", e.Status)
	}
	return fmt.Sprintf("ended by %s", e.Name)
}

// logReap logs the end of a process.
func (p *Pool) logReap(w *worker, e Exit, expected bool) {
	level, mark, how := slog.LevelDebug, "", ""
	if !expected {
		level, mark = slog.LevelError, " (WORKER DIED UNEXPECTEDLY)"
	}
	switch {
	case e.Lost:
		how = "exited"
	case e.Signal == 0:
		how = fmt.Sprintf("exited normally with status %d", e.Status)
	case expected && (e.Signal == syscall.SIGTERM || e.Signal == syscall.SIGKILL):
		how, mark = "exited due to SIGTERM/SIGKILL as expected.", ""
	default:
		how = fmt.Sprintf("exited due to signal %d", int(e.Signal))
		level, mark = slog.LevelError, " (WORKER DIED UNEXPECTEDLY)"
	}
	p.event(level, "Reap: worker %d (pid %d) %s%s", w.n, w.pid(), how, mark)
	if u := e.Rusage; u != nil {
		p.event(slog.LevelInfo, "Worker %d resource usage: req=%d, scans=%d, user=%d.%03d, sys=%d.%03d, nswap=%d, majflt=%d, minflt=%d, maxrss=%d, bi=%d, bo=%d",
			w.n, w.requests, w.scans, u.Utime.Sec, u.Utime.Usec/1000, u.Stime.Sec, u.Stime.Usec/1000, u.Nswap, u.Majflt, u.Minflt, u.Maxrss, u.Inblock, u.Oublock)
	}
	switch {
	case expected:
	case w.outOfMemory:
		p.log.Add(slog.LevelError, fmt.Sprintf("Worker %d ran out of memory -- possible DoS attack due to complex MIME?", w.n))
	case !p.limits.Original:
		p.log.Add(slog.LevelError, fmt.Sprintf("%s: worker %d (pid %d) died unexpectedly", p.cause, w.n, w.pid()))
	case p.limits.LogEvents:
		p.log.Add(slog.LevelError, fmt.Sprintf("Worker %d died prematurely -- check your filter rules", w.n))
	default:
		p.log.Add(slog.LevelError, fmt.Sprintf("Worker %d died prematurely -- check your filter rules and use the '-l' flag on mimedefang-multiplexor to see Perl error messages", w.n))
	}
}
