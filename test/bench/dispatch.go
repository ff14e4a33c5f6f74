package main

import (
	"fmt"
	"os"
	"path/filepath"

	"postern/internal/mxproto"
)

// dispatchRow is a multiplexor under test. A limit is what there can be at best with
// one client: a relay in C that does nothing but pass a line to its one worker,
// and the answer back.
type dispatchRow struct {
	name       string
	program    string
	persistent bool
	limit      bool
	server     *server
}

// dispatchFigures are the measurements of one row at one point.
type dispatchFigures struct{ rate, p99, cpu, refused []float64 }

// dispatchGoals are the worst ratios of ours to the original over all points.
type dispatchGoals struct{ rate, kept, p99, cpu, refused extreme }

// dispatch measures requests through the pool of workers, which answer at once.
func (b *bench) dispatch() error {
	workers, clients, requests := []int{4, 16, 64}, []int{1, 8, 64, 256}, 40000
	if b.quick {
		workers, clients, requests = []int{4}, []int{1, 64}, 8000
	}
	rows := []dispatchRow{
		{name: "mimedefang", program: original},
		{name: "ours", program: b.ours("multiplexor")},
		{name: "ours, kept", program: b.ours("multiplexor"), persistent: true},
		{name: "(limit)", persistent: true, limit: true},
	}
	if missing(original) {
		rows = rows[1:]
	}
	fmt.Printf("\nRequests through the pool, medians of %d runs in turns; \"kept\" is persistent connections,\n\"limit\" a relay that has no pool, no queue and no time limits.\n", b.rounds)
	fmt.Printf("Ratios are to the first row. CPU is the multiplexor's for a request that was answered, without its workers.\n\n")
	fmt.Printf("%-8s %-8s %-12s %10s %6s %9s %6s %9s %6s %9s %8s\n", "workers", "clients", "row",
		"requests/s", "ratio", "p99 us", "ratio", "CPU us", "ratio", "RSS MiB", "refused")
	goals := dispatchGoals{rate: extreme{atLeast: true, limit: 1}, kept: extreme{atLeast: true, limit: 2},
		p99: extreme{limit: 1}, cpu: extreme{limit: 1}, refused: extreme{limit: 0}}
	for _, w := range workers {
		for i := range rows {
			var err error
			kind := poolKind{program: rows[i].program, workers: w, queue: 128}
			start := pick(rows[i].limit, b.startRelay, b.startServer)
			if rows[i].server, err = start(fmt.Sprintf("dispatch-%d-%d", w, i), kind); err != nil {
				return fmt.Errorf("%s: %w", rows[i].name, err)
			}
		}
		for _, c := range clients {
			some := rows
			if c > 1 {
				some = rows[:len(rows)-1]
			}
			if err := b.dispatchPoint(some, c, pick(c == 1, requests/4, requests), &goals); err != nil {
				return err
			}
		}
		b.children.stop()
	}
	goals.rate.addTo(&b.goals, "classic connections: rate, ours to the original", "")
	goals.refused.addTo(&b.goals, "classic connections: refused, ours less the original's", " %")
	goals.p99.addTo(&b.goals, "classic connections: p99, ours to the original", "")
	goals.cpu.addTo(&b.goals, "classic connections: CPU a request, ours to the original", "")
	goals.kept.addTo(&b.goals, "persistent connections: rate, ours to the original", "")
	return nil
}

// dispatchPoint measures all rows in turns and prints them.
func (b *bench) dispatchPoint(rows []dispatchRow, clients, requests int, goals *dispatchGoals) error {
	figures := make([]dispatchFigures, len(rows))
	workers := rows[0].server.workers
	err := inTurns(b.rounds, len(rows), func(_, i int) error {
		row, f := rows[i], &figures[i]
		o, cpu, err := row.server.measured(load{request: relayok, clients: clients, requests: requests, persistent: row.persistent})
		if err != nil {
			return fmt.Errorf("%s, %d workers, %d clients: %w", row.name, workers, clients, err)
		}
		f.rate = append(f.rate, o.rate())
		f.p99 = append(f.p99, micro(percentile(o.latency, 0.99)))
		f.cpu = append(f.cpu, cpu*float64(requests)/float64(len(o.latency)))
		f.refused = append(f.refused, 100*float64(o.refused)/float64(requests))
		return nil
	})
	if err != nil {
		return err
	}
	first := figures[0].medians()
	for i := range figures {
		f := figures[i].medians()
		fmt.Printf("%-8d %-8d %-12s %10.0f %6.2f %9.0f %6.2f %9.1f %6.2f %9.1f %7.1f%%\n", workers, clients, rows[i].name,
			f.rate, f.rate/first.rate, f.p99, f.p99/first.p99, f.cpu, f.cpu/first.cpu, mib(memory(rows[i].server.pid)), f.refused)
		where := fmt.Sprintf("%d workers, %d clients", workers, clients)
		switch {
		case rows[0].program != original || i == 0 || rows[i].limit:
		case rows[i].persistent:
			goals.kept.point(f.rate/first.rate, where)
		default:
			goals.rate.point(f.rate/first.rate, where)
			goals.p99.point(f.p99/first.p99, where)
			goals.cpu.point(f.cpu/first.cpu, where)
			goals.refused.point(f.refused-first.refused, where)
		}
	}
	return nil
}

// startRelay starts the relay instead of a multiplexor.
func (b *bench) startRelay(name string, _ poolKind) (*server, error) {
	relay, err := b.compile("relay", fmt.Sprintf("-DHELLO_OK=%q", mxproto.HelloOK))
	if err != nil {
		return nil, err
	}
	dir, err := b.scratch(name)
	if err != nil {
		return nil, err
	}
	s := &server{socket: filepath.Join(dir, "sock"), workers: 1}
	log := filepath.Join(b.dir, name+".log")
	if s.pid, err = b.children.start(log, relay, s.socket, b.worker); err != nil {
		return nil, err
	}
	return s, awaitChild(name, s.pid, log, func() bool {
		_, err := os.Stat(s.socket)
		return err == nil
	})
}

// dispatchMedians is one row at one point.
type dispatchMedians struct{ rate, p99, cpu, refused float64 }

func (f *dispatchFigures) medians() dispatchMedians {
	return dispatchMedians{median(f.rate), median(f.p99), median(f.cpu), median(f.refused)}
}
