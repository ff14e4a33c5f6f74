package main

import "fmt"

// constant is how much dearer a request may become where its cost is to be
// constant: what runs on this machine beside us moves it by as much.
const constant = 1.25

// pool measures what grows with a pool that should not: workers that do
// nothing, connections that say nothing, requests that wait. Then a start.
func (b *bench) pool() error {
	there := !missing(original)
	for _, measure := range []func(bool) error{b.manyWorkers, b.manyConnections, b.longQueue, b.backlog, b.coldStart} {
		if err := measure(there); err != nil {
			return err
		}
		b.children.stop()
	}
	return nil
}

// A costRow is a multiplexor with so much of something.
type costRow struct {
	name       string
	many       int
	persistent bool
	server     *server
	cpu        []float64
}

// runCosts measures the CPU time of requests in turns and prints it.
func (b *bench) runCosts(rows []*costRow, clients, requests int, unit string) error {
	err := inTurns(b.rounds+1, len(rows), func(round, i int) error {
		row := rows[i]
		_, cpu, err := row.server.measured(load{request: relayok, clients: clients, requests: requests, persistent: row.persistent})
		if err != nil {
			return fmt.Errorf("%s, %d %s: %w", row.name, row.many, unit, err)
		}
		if row.cpu = append(row.cpu, cpu); round == 0 {
			row.cpu = nil // it also warmed the caches
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("\nCPU of the multiplexor for a request, %d client%s at a time\n\n%-12s %-18s %9s %6s\n",
		clients, pick(clients > 1, "s", ""), "row", unit, "CPU us", "ratio")
	least := map[string]float64{}
	for _, row := range rows {
		cpu := median(row.cpu)
		if least[row.name] == 0 {
			least[row.name] = cpu
		}
		fmt.Printf("%-12s %-18d %9.1f %6.2f\n", row.name, row.many, cpu, cpu/least[row.name])
	}
	return nil
}

// growth gives the most that a request of a row costs, to what it costs where
// there is least.
func growth(rows []*costRow, name string, e *extreme, where string) {
	first := 0.0
	for _, row := range rows {
		if row.name != name {
			continue
		}
		if first == 0 {
			first = median(row.cpu)
			continue
		}
		e.point(median(row.cpu)/first, fmt.Sprintf("%d %s", row.many, where))
	}
}

// manyWorkers compares requests through 4 to 1000 workers.
func (b *bench) manyWorkers(there bool) error {
	sizes := pick(b.quick, []int{4, 64, 400}, []int{4, 64, 200, 1000})
	var rows []*costRow
	for _, n := range sizes {
		kind := poolKind{program: b.ours("multiplexor"), workers: n, queue: 128}
		s, err := b.startServer(fmt.Sprintf("workers-%d", n), kind)
		if err != nil {
			return fmt.Errorf("%d workers: %w", n, err)
		}
		rows = append(rows, &costRow{name: "ours", many: n, server: s}, &costRow{name: "ours, kept", many: n, server: s, persistent: true})
		if n > 200 || !there {
			continue
		}
		kind.program = original
		if s, err = b.startServer(fmt.Sprintf("original-%d", n), kind); err != nil {
			return fmt.Errorf("original, %d workers: %w", n, err)
		}
		rows = append(rows, &costRow{name: "mimedefang", many: n, server: s})
	}
	cost := extreme{limit: constant}
	for _, clients := range []int{1, 16} {
		if err := b.runCosts(rows, clients, pick(b.quick, 2000, 6000), "workers"); err != nil {
			return err
		}
		growth(rows, "ours", &cost, fmt.Sprintf("workers, %d clients", clients))
		growth(rows, "ours, kept", &cost, fmt.Sprintf("workers, %d clients, kept", clients))
	}
	cost.addTo(&b.goals, fmt.Sprintf("cost of a request, %d workers to 4", sizes[len(sizes)-1]), "")
	fmt.Println("\nResident memory afterwards, without the pages of files, which the kernel takes back at need")
	for _, row := range rows {
		if row.many != 64 || row.persistent {
			continue
		}
		own := mib(ownMemory(row.server.pid))
		fmt.Printf("%-12s 64 workers: %.1f MiB\n", row.name, own)
		if row.name == "ours" {
			b.goals.add(own < 12, "memory of its own at 64 workers", "under 12 MiB", "%.1f MiB", own)
		}
	}
	if there {
		fmt.Printf("mimedefang with 400 workers: %s\n", b.originalWith(400))
	}
	return nil
}

// originalWith says what the original does with so many workers.
func (b *bench) originalWith(workers int) string {
	s, err := b.startServer(fmt.Sprintf("original-%d", workers), poolKind{program: original, workers: workers, queue: 128})
	if err != nil {
		return fmt.Sprintf("dies (%v)", err)
	}
	defer b.children.end(s.pid)
	if _, cpu, err := s.measured(load{request: relayok, clients: 1, requests: 1000}); err == nil {
		return fmt.Sprintf("%.1f us a request", cpu)
	}
	return "dies"
}

// manyConnections compares requests beside 0 to 10 000 idle connections.
func (b *bench) manyConnections(there bool) error {
	var rows []*costRow
	var held []func()
	add := func(name, program string, idle int, persistent bool) error {
		s, err := b.startServer(fmt.Sprintf("%s-idle-%d", name, idle), poolKind{program: program, workers: 4, queue: 128})
		if err != nil {
			return err
		}
		rows = append(rows, &costRow{name: name, many: idle, server: s})
		release, err := hold(s.socket, idle, persistent)
		if err != nil {
			return fmt.Errorf("%s: %d idle connections: %w", name, idle, err)
		}
		held = append(held, release)
		return nil
	}
	defer func() {
		for _, release := range held {
			release()
		}
	}()
	most := min(10000, descriptorLimit()-3000)
	for _, idle := range []int{0, 1000, most} {
		if err := add("ours", b.ours("multiplexor"), idle, true); err != nil {
			return err
		}
	}
	for _, idle := range []int{0, 900} { // it dies above 1024 descriptors
		if there {
			if err := add("mimedefang", original, idle, false); err != nil {
				return err
			}
		}
	}
	cost := extreme{limit: constant}
	for _, clients := range []int{1, 16} {
		if err := b.runCosts(rows, clients, pick(b.quick, 2000, 6000), "idle connections"); err != nil {
			return err
		}
		growth(rows, "ours", &cost, fmt.Sprintf("connections, %d clients", clients))
	}
	cost.addTo(&b.goals, fmt.Sprintf("cost of a request, %d idle connections to none", most), "")
	return nil
}
