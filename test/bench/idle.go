package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	spareSessions = 20  // that our proxy takes beside those that are idle
	idleEach      = 8   // KiB of resident memory that a session may take
	probes        = 500 // of each thing that has to answer meanwhile
	quickly       = 10 * time.Millisecond
)

// idleSessions is how many are held, as far as descriptors allow.
func (b *bench) idleSessions() int { return min(pick(b.quick, 1000, 10000), descriptorLimit()-200) }

// idle holds sessions after EHLO and measures what they take, and whether the
// proxy still answers.
func (b *bench) idle() error {
	if missing("smtp-sink") {
		return nil
	}
	sink, err := b.startSink()
	if err != nil {
		return err
	}
	fmt.Printf("\nIdle sessions after EHLO: memory of the proxy for each, resident and proportional (PSS),\n")
	fmt.Printf("and how long a new session waits for its greeting meanwhile.\n\n%-10s %8s %10s %10s %9s  %s\n",
		"row", "sessions", "RSS KiB", "PSS KiB", "MiB in all", "greeting of a new session")
	for _, name := range []string{"haproxy", "nginx", "ours"} {
		p, err := b.startProxy(name, sink)
		if err != nil || p == nil {
			if err != nil {
				return err
			}
			continue
		}
		n := b.idleSessions()
		if name == "haproxy" {
			n = min(n, descriptorLimit()/2-100) // two of its descriptors for a session
		}
		if err := b.idleAt(p, n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.children.end(p.pid)
	}
	return nil
}

// idleAt measures one proxy.
func (b *bench) idleAt(p *proxy, n int) error {
	// What the first session starts is not counted, nor what a start leaves to clean up.
	if err := visit(p.port); err != nil {
		return err
	}
	time.Sleep(time.Second)
	before := snapshot(p)
	sessions, err := openSessions(p.port, n)
	defer func() {
		for _, c := range sessions {
			c.conn.Close()
		}
	}()
	if err != nil {
		return err
	}
	time.Sleep(pick(b.quick, time.Second, 5*time.Second)) // memory settles
	held := snapshot(p)
	each := func(after, before int) float64 { return float64(after-before) / 1024 / float64(n) }
	rss := each(held.rss, before.rss)
	greetings, err := timed(probes, func() error { return visit(p.port) })
	if err != nil {
		return err
	}
	fmt.Printf("%-10s %8d %10.2f %10.2f %9.1f  %s\n", p.name, n, rss, each(held.pss, before.pss), mib(held.rss), spread(greetings))
	if p.name != "ours" {
		return nil
	}
	b.goals.add(rss <= idleEach, fmt.Sprintf("resident memory of an idle session, %d of them", n), fmt.Sprintf("at most %d KiB", idleEach), "%.2f KiB", rss)
	b.quickly("a new session is greeted", greetings)
	return b.idleOurs(p, before, sessions)
}

// idleOurs is what is measured of our proxy alone.
func (b *bench) idleOurs(p *proxy, before resources, sessions []*client) error {
	figures, err := timed(probes, func() error { _, err := goroutines(p.metrics); return err })
	if err != nil {
		return err
	}
	fmt.Printf("%-10s metrics: %s\n", "", spread(figures))
	b.quickly("metrics", figures)
	refusals, err := refused(p.port)
	if err != nil {
		return err
	}
	fmt.Printf("%-10s a session too many is refused: %s\n", "", spread(refusals))
	b.quickly("a session too many is refused", refusals)
	for _, c := range sessions {
		if err := c.must("250", "NOOP"); err != nil {
			return fmt.Errorf("an idle session: %w", err)
		}
		c.conn.Close()
	}
	var after resources
	const slack = 4 // the connection on which we ask, and the like
	back := func() bool {
		after = snapshot(p)
		return after.descriptors <= before.descriptors+slack && after.goroutines <= before.goroutines+slack
	}
	err = await("the end of the sessions", back)
	fmt.Printf("%-10s descriptors %d before and %d after, goroutines %d and %d\n", "", before.descriptors, after.descriptors, before.goroutines, after.goroutines)
	b.goals.add(err == nil, "descriptors and goroutines after the sessions", "as before", "%d, %d before; %d, %d after",
		before.descriptors, before.goroutines, after.descriptors, after.goroutines)
	return nil
}

// quickly is the goal that something answers within milliseconds.
func (b *bench) quickly(what string, took []time.Duration) {
	p99 := percentile(took, 0.99)
	b.goals.add(p99 < quickly, "beside idle sessions: "+what, fmt.Sprintf("p99 under %v", quickly), "p99 %v", p99.Round(time.Microsecond))
}

// resources are what a proxy uses.
type resources struct{ rss, pss, descriptors, goroutines int }

func snapshot(p *proxy) (r resources) {
	for _, pid := range processTable().tree(p.pid) {
		r.rss += memory(pid)
	}
	r.pss, r.descriptors = treeMemory(p.pid), descriptors(p.pid)
	r.goroutines, _ = goroutines(p.metrics) // of ours; 0 for the others
	return r
}

// visit has a session greeted and ends it.
func visit(port int) error {
	c, line, err := greet(port)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "220") {
		c.conn.Close()
		return fmt.Errorf("greeting %q", line)
	}
	return c.quit()
}

// timed does something so many times with pauses, and gives the times, sorted.
func timed(n int, do func() error) (took []time.Duration, err error) {
	for range n {
		begin := time.Now()
		if err := do(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
		time.Sleep(5 * time.Millisecond)
	}
	spread(took)
	return took, nil
}

// openSessions opens sessions and says EHLO in each.
func openSessions(port, n int) ([]*client, error) {
	sessions := make([]*client, n)
	errs := make([]error, 16)
	var all sync.WaitGroup
	for part := range errs {
		all.Go(func() {
			for i := part; i < n && errs[part] == nil; i += len(errs) {
				c, _, err := greet(port)
				if err == nil {
					sessions[i] = c
					err = c.must("250", "EHLO client.example.org")
				}
				errs[part] = err
			}
		})
	}
	all.Wait()
	opened := sessions[:0]
	for _, c := range sessions {
		if c != nil {
			opened = append(opened, c)
		}
	}
	return opened, errors.Join(errs...)
}

// refused fills the proxy up and measures how soon further sessions are refused.
func refused(port int) ([]time.Duration, error) {
	for range spareSessions {
		c, line, err := greet(port)
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		if strings.HasPrefix(line, "421") {
			break
		}
	}
	return timed(probes, func() error {
		c, line, err := greet(port)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		if !strings.HasPrefix(line, "421") {
			return fmt.Errorf("one session too many is greeted with %q", line)
		}
		return nil
	})
}

// goroutines asks our proxy's metrics.
func goroutines(socket string) (int, error) {
	client := http.Client{Timeout: clientPatience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	response, err := client.Get("http://metrics/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(text)
		}
	}
	return 0, fmt.Errorf("no goroutines in the metrics")
}
