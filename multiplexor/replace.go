package main

import "fmt"

// retire ends an idle worker that has served its time. Where there is room for one
// more, the worker that takes its place is started before, and is busy with a ping
// until it has loaded its rules: so no request has to wait for that while another
// worker is idle. The original starts one when a request needs it.
func (p *pool) retire(w *worker, reason string) {
	if !p.limits.ClassicReload && len(p.stopped) > 0 && p.mayStart() {
		last := len(p.stopped) - 1
		next := p.stopped[last]
		p.stopped = p.stopped[:last]
		ping := new(request)
		ping.set([]byte(probeLine), fromPool, nobody{})
		p.start(next, ping, fmt.Sprintf("Taking the place of worker %d", w.n))
	}
	p.kill(w, reason, false)
}

// nobody asks for nothing: what is answered does not matter.
type nobody struct{}

func (nobody) answered([]byte) {}
func (nobody) failed(failure)  {}
