package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Hosts of filters are busy: that is what filters do.
const (
	busyLoops = 4   // processes that only calculate
	asQuick   = 1.2 // how long a transaction may take, to HAProxy's
)

// What a transaction takes is as much the scheduler's doing as the proxy's: about half of them wait for a processor
// once, and last five times as long as the others, and which half depends on where the scheduler has put whom when all
// began. So everything is started anew many times, and the middle one of these sittings counts; turns are short, that
// each row has its part of whatever the machine does meanwhile.
const (
	contendedSittings = 3  // in a round
	contendedTurns    = 10 // of each row in a sitting
	contendedTurn     = 20 // transactions
)

// contendedRow is what the transactions through one proxy took: all of them, and the median of each sitting.
type contendedRow struct {
	name    string
	times   []time.Duration
	medians []time.Duration
}

// contended measures how long one client's transaction takes beside processes that
// want all of the processors: with a greeting, one message and a QUIT.
func (b *bench) contended() error {
	if missing("smtp-sink") {
		return nil
	}
	rows := []*contendedRow{{name: "direct"}, {name: "haproxy"}, {name: "ours"}}
	for range b.rounds * contendedSittings {
		err := b.contendedSitting(rows)
		b.children.stop()
		if err != nil {
			return err
		}
	}
	fmt.Printf("\nOne SMTP transaction beside %d busy processes, started anew %d times\n\n%-10s %12s %12s %12s %12s\n",
		busyLoops, b.rounds*contendedSittings, "row", "p50", "p90", "p99", "mean")
	for _, r := range rows {
		slices.Sort(r.times)
		fmt.Printf("%-10s %12v %12v %12v %12v\n", r.name, r.at(0.5), r.at(0.9), r.at(0.99), r.mean())
	}
	b.contendedGoals(rows[2], rows[1])
	return nil
}

// contendedSitting starts everything and measures each row for a while.
func (b *bench) contendedSitting(rows []*contendedRow) error {
	sink, err := b.startSink()
	if err != nil {
		return err
	}
	ports := []int{sink}
	for _, r := range rows[1:] {
		p, err := b.startProxy(r.name, sink)
		if err != nil {
			return err
		}
		if p == nil {
			ports = append(ports, 0) // no such peer here
			continue
		}
		ports = append(ports, p.port)
	}
	for i := range busyLoops {
		log := filepath.Join(b.dir, fmt.Sprintf("busy-%d", i))
		if _, err := b.children.start(log, "sh", "-c", "while :; do :; done"); err != nil {
			return err
		}
	}
	times := make([][]time.Duration, len(rows))
	err = inTurns(contendedTurns, len(rows), func(_, i int) error {
		if ports[i] == 0 {
			return nil
		}
		took, err := timed(contendedTurn, func() error { return transaction(ports[i]) })
		times[i] = append(times[i], took...)
		return err
	})
	if err != nil {
		return err
	}
	for i, r := range rows {
		slices.Sort(times[i])
		r.times = append(r.times, times[i]...)
		r.medians = append(r.medians, percentile(times[i], 0.5))
	}
	return nil
}

// contendedGoals compares; the median by what it is in the middle sitting.
func (b *bench) contendedGoals(ours, haproxy *contendedRow) {
	var ratios []float64
	for i, m := range haproxy.medians {
		if m > 0 {
			ratios = append(ratios, float64(ours.medians[i])/float64(m))
		}
	}
	for _, g := range []struct {
		name  string
		ratio float64
	}{
		{"p50", median(ratios)},
		{"p99", float64(ours.at(0.99)) / float64(haproxy.at(0.99))},
		{"mean", float64(ours.mean()) / float64(haproxy.mean())},
	} {
		goal := extreme{limit: asQuick}
		if len(ratios) > 0 {
			goal.point(g.ratio, "1 session")
		}
		goal.addTo(&b.goals, g.name+" of a transaction beside busy processes, to HAProxy", "")
	}
}

// at is a percentile of all transactions, which are sorted.
func (r *contendedRow) at(p float64) time.Duration {
	return percentile(r.times, p).Round(time.Microsecond)
}

// mean is 0 if there were none.
func (r *contendedRow) mean() time.Duration {
	var sum time.Duration
	for _, t := range r.times {
		sum += t
	}
	return (sum / time.Duration(max(len(r.times), 1))).Round(time.Microsecond)
}

// transaction sends one message of 1 KiB.
func transaction(port int) error {
	c, _, err := greet(port)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	content := "Subject: contended\r\n\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 16)
	for _, step := range []struct{ code, command string }{
		{"250", "EHLO client.example.org"},
		{"250", "MAIL FROM:<ann@example.org>"},
		{"250", "RCPT TO:<bob@example.net>"},
		{"354", "DATA"},
		{"250", content + "."},
	} {
		if err := c.must(step.code, step.command); err != nil {
			return err
		}
	}
	return c.quit()
}
