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

// What a transaction takes is as much the scheduler's doing as the proxy's. So turns are short, that each row has its
// part of whatever the machine does meanwhile, and there are many, that the slowest hundredth is some dozens.
const (
	contendedTurns = 30 // of each row in a round
	contendedTurn  = 20 // transactions
)

// contended measures how long one client's transaction takes beside processes that
// want all of the processors: with a greeting, one message and a QUIT.
func (b *bench) contended() error {
	if missing("smtp-sink") {
		return nil
	}
	sink, err := b.startSink()
	if err != nil {
		return err
	}
	rows := []*proxy{{name: "direct", port: sink}}
	for _, name := range []string{"haproxy", "ours"} {
		row, err := b.startProxy(name, sink)
		if err != nil {
			return err
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	for i := range busyLoops {
		log := filepath.Join(b.dir, fmt.Sprintf("busy-%d", i))
		if _, err := b.children.start(log, "sh", "-c", "while :; do :; done"); err != nil {
			return err
		}
	}
	times := make([][]time.Duration, len(rows))
	err = inTurns(b.rounds*contendedTurns, len(rows), func(_, i int) error {
		took, err := timed(contendedTurn, func() error { return transaction(rows[i].port) })
		times[i] = append(times[i], took...)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("\nOne SMTP transaction beside %d busy processes\n\n%-10s %12s %12s\n", busyLoops, "row", "p50", "p99")
	figures := map[string][2]float64{}
	for i, row := range rows {
		slices.Sort(times[i])
		p50, p99 := percentile(times[i], 0.5), percentile(times[i], 0.99)
		fmt.Printf("%-10s %12v %12v\n", row.name, p50.Round(time.Microsecond), p99.Round(time.Microsecond))
		figures[row.name] = [2]float64{micro(p50), micro(p99)}
	}
	for i, about := range []string{"p50 of a transaction beside busy processes, to HAProxy", "p99 of a transaction beside busy processes, to HAProxy"} {
		goal := extreme{limit: asQuick}
		if haproxy, there := figures["haproxy"]; there {
			goal.point(figures["ours"][i]/haproxy[i], "1 session")
		}
		goal.addTo(&b.goals, about, "")
	}
	return nil
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
