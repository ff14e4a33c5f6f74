package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stormWorkers is the size of the pool in a storm; as many clients keep it busy.
const stormWorkers = 8

// stormMix are the interest lines of the listeners, taken in turns.
const stormMix = "?YZ ?*+ ?* ?YZF+ ?YZ"

// stormBound is how much memory a multiplexor may take that has so many
// listeners: what it keeps for those that are behind, 32 MiB, and has made
// ready for them, 8 MiB, twice as the collector lets it grow; and a little for
// each.
func stormBound(listeners int) int { return 2*(32+8)<<20 + listeners*16<<10 }

// stormRun is what a storm came to.
type stormRun struct {
	rate  float64
	cpu   float64 // of all processes, microseconds a request
	peak  int     // of the multiplexor's memory
	heard heard
}

// storm compares the rate of the pool without listeners to that with many, of
// which a tenth never read.
func (b *bench) storm() error {
	requests, many := pick(b.quick, 10000, 50000), pick(b.quick, 200, 1000)
	fmt.Printf("\nStorm: %d requests, %d workers and clients; listeners with interests %q, of which a tenth never reads\n\n", requests, stormWorkers, stormMix)
	runs := map[int][]stormRun{}
	for round := range b.rounds {
		for _, listeners := range []int{0, many} {
			run, err := b.stormOnce(fmt.Sprintf("storm-%d-%d", round, listeners), listeners, requests)
			if err != nil {
				return err
			}
			runs[listeners] = append(runs[listeners], run)
			b.children.stop()
		}
	}
	of := func(listeners int, value func(stormRun) float64) float64 {
		var values []float64
		for _, run := range runs[listeners] {
			values = append(values, value(run))
		}
		return median(values)
	}
	rate, cpu := func(r stormRun) float64 { return r.rate }, func(r stormRun) float64 { return r.cpu }
	ratio := of(many, rate) / of(0, rate)
	fmt.Printf("\nrequests a second: %.0f without listeners, %.0f with: ratio of the medians %.2f\n", of(0, rate), of(many, rate), ratio)
	fmt.Printf("CPU of all processes for a request, while requests run: %.1f us without, %.1f us with\n", of(0, cpu), of(many, cpu))
	var all heard
	most := 0
	for _, run := range runs[many] {
		all = all.plus(run.heard)
		most = max(most, run.peak)
	}
	b.goals.add(ratio >= 0.9, fmt.Sprintf("rate of the pool with %d listeners, to without", many), "at least 0.9", "%.2f (by CPU of all processes %.2f)", ratio, of(0, cpu)/of(many, cpu))
	b.goals.add(all.short+all.gaps+all.lost+all.closed == 0, "listeners with + have every number", "all", "%d of %d readers incomplete, %d numbers missing, %d reported lost, %d closed",
		all.short, all.readers, all.gaps, all.lost, all.closed)
	b.goals.add(all.wrong+all.short == 0, "classic listeners have every Y and Z in order", "all", "%d of %d readers wrong or incomplete", all.wrong+all.short, all.readers)
	b.goals.add(most <= stormBound(many), "memory of the multiplexor is bounded", fmt.Sprintf("at most %.0f MiB", mib(stormBound(many))), "peak %.1f MiB", mib(most))
	return nil
}

func (b *bench) stormOnce(name string, listeners, requests int) (run stormRun, err error) {
	s, err := b.startServer(name, poolKind{program: b.ours("multiplexor"), workers: stormWorkers, queue: 128, notify: true})
	if err != nil {
		return run, err
	}
	l := load{request: relayok, clients: stormWorkers, requests: 2000, persistent: true}
	if _, _, err := s.measured(l); err != nil { // caches are warm
		return run, err
	}
	child := 0
	var in io.WriteCloser
	var out *bufio.Reader
	if listeners > 0 {
		if child, in, out, err = b.startListeners(s.notify, listeners); err != nil {
			return run, err
		}
	}
	if err := resetPeak(s.pid); err != nil {
		return run, err
	}
	l.requests = requests
	self, pool, theirs := ourCPU(), treeCPU(s.pid), cpu(child)
	o, _, err := s.measured(l)
	if err != nil {
		return run, err
	}
	self, pool, theirs = ourCPU()-self, treeCPU(s.pid)-pool, cpu(child)-theirs
	run.rate, run.cpu = o.rate(), micro(self+pool+theirs)/float64(requests)
	fmt.Printf("%5d listeners: %6.0f requests a second; CPU: pool %v, load %v, listeners %v\n", listeners, run.rate,
		pool.Round(time.Millisecond), self.Round(time.Millisecond), theirs.Round(time.Millisecond))
	if child != 0 {
		if run.heard, err = finishListeners(in, out); err != nil {
			return run, err
		}
		run.peak = peak(s.pid)
		fmt.Printf("%17s%v; memory of the multiplexor %.1f MiB at its peak\n", "", run.heard, mib(run.peak))
	}
	return run, nil
}

// startListeners starts the process of the listeners and waits until they
// listen.
func (b *bench) startListeners(socket string, n int) (pid int, in io.WriteCloser, out *bufio.Reader, err error) {
	cmd := exec.Command("/proc/self/exe", strconv.Itoa(n), stormMix)
	cmd.Env = append(os.Environ(), listenersEnv+"="+socket)
	cmd.Stderr = os.Stderr
	if in, err = cmd.StdinPipe(); err != nil {
		return 0, nil, nil, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, nil, err
	}
	if pid, err = b.children.run(cmd); err != nil {
		return 0, nil, nil, err
	}
	out = bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		return 0, nil, nil, fmt.Errorf("listeners: %q, %v", line, err)
	}
	return pid, in, out, nil
}

// finishListeners asks what came of them.
func finishListeners(in io.WriteCloser, out *bufio.Reader) (h heard, err error) {
	if _, err := io.WriteString(in, "finish\n"); err != nil {
		return h, err
	}
	line, err := out.ReadString('\n')
	if err != nil {
		return h, fmt.Errorf("listeners: %w", err)
	}
	return parseHeard(strings.TrimSpace(line))
}

// ourCPU is the CPU time of this process.
func ourCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
