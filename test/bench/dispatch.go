package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// dispatchRow is a multiplexor under test.
type dispatchRow struct {
	name       string
	program    string
	persistent bool
	socket     string
	pid        int
}

// dispatchFigures are the measurements of one row at one point.
type dispatchFigures struct{ rate, p99, cpu, refused []float64 }

// dispatch measures requests through the pool of workers, which answer at once.
func (b *bench) dispatch() error {
	worker, err := b.compileWorker()
	if err != nil {
		return err
	}
	workers, clients, requests := []int{4, 16, 64}, []int{1, 8, 64, 256}, 20000
	if b.quick {
		workers, clients, requests = []int{4}, []int{1, 16}, 5000
	}
	rows := []dispatchRow{
		{name: "mimedefang", program: "mimedefang-multiplexor"},
		{name: "ours", program: filepath.Join(b.bin, "multiplexor")},
		{name: "ours, kept", program: filepath.Join(b.bin, "multiplexor"), persistent: true},
	}
	if missing("mimedefang-multiplexor") {
		rows = rows[1:]
	}
	fmt.Printf("\nRequests through the pool, medians of %d runs in turns; \"kept\" is persistent connections.\n", b.rounds)
	fmt.Printf("Rate and CPU of the multiplexor as ratios to the first row.\n\n")
	fmt.Printf("%-8s %-8s %-12s %10s %6s %9s %9s %6s %9s %8s\n", "workers", "clients", "row", "requests/s", "ratio", "p99 us", "CPU us", "ratio", "RSS MiB", "refused")
	for _, w := range workers {
		if err := b.startPools(rows, w, worker); err != nil {
			return err
		}
		for _, c := range clients {
			n := requests
			if c == 1 {
				n /= 4
			}
			if err := b.dispatchPoint(rows, w, c, n); err != nil {
				return err
			}
		}
		b.procs.stop()
	}
	return nil
}

// compileWorker builds the C worker where every account may execute it.
func (b *bench) compileWorker() (string, error) {
	path := filepath.Join(b.dir, "worker")
	out, err := exec.Command("cc", "-O2", "-Wall", "-o", path, filepath.Join("test", "bench", "testdata", "worker.c")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile worker: %w\n%s", err, out)
	}
	return path, nil
}

// startPools starts the multiplexors and has all their workers running.
func (b *bench) startPools(rows []dispatchRow, workers int, worker string) error {
	for i := range rows {
		row := &rows[i]
		dir, err := b.scratch(fmt.Sprintf("pool-%d-%d", workers, i))
		if err != nil {
			return err
		}
		row.socket = filepath.Join(dir, "sock")
		n := strconv.Itoa(workers)
		args := []string{"-D", "-m", n, "-x", n, "-w", "1", "-z", dir, "-s", row.socket, "-f", worker,
			"-r", "100000000", "-i", "100000", "-q", "128"}
		if asRoot() {
			args = append(args, "-U", account)
		}
		if row.pid, err = b.procs.start(filepath.Join(b.dir, row.name+".log"), row.program, args...); err != nil {
			return err
		}
		if err := await(row.name, func() bool { _, err := os.Stat(row.socket); return err == nil }); err != nil {
			return err
		}
		busy := load{socket: row.socket, request: "sleepok 500000", clients: workers, requests: workers}
		if _, err := busy.run(); err != nil {
			return fmt.Errorf("%s: start workers: %w", row.name, err)
		}
	}
	return nil
}

// dispatchPoint measures all rows in turns and prints them.
func (b *bench) dispatchPoint(rows []dispatchRow, workers, clients, requests int) error {
	figures := make([]dispatchFigures, len(rows))
	for range b.rounds {
		for i, row := range rows {
			l := load{socket: row.socket, request: "relayok 127.0.0.1 localhost 1234 127.0.0.1 25", clients: clients, requests: requests, persistent: row.persistent}
			before := cpu(row.pid)
			o, err := l.run()
			if err != nil {
				return fmt.Errorf("%s, %d workers, %d clients: %w", row.name, workers, clients, err)
			}
			f := &figures[i]
			f.rate = append(f.rate, o.rate())
			f.p99 = append(f.p99, float64(o.percentile(0.99))/float64(time.Microsecond))
			f.cpu = append(f.cpu, float64(cpu(row.pid)-before)/float64(time.Microsecond)/float64(requests))
			f.refused = append(f.refused, 100*float64(o.refused)/float64(requests))
		}
	}
	firstRate, firstCPU := median(figures[0].rate), median(figures[0].cpu)
	for i, f := range figures {
		fmt.Printf("%-8d %-8d %-12s %10.0f %6.2f %9.0f %9.1f %6.2f %9.1f %7.1f%%\n", workers, clients, rows[i].name,
			median(f.rate), median(f.rate)/firstRate, median(f.p99), median(f.cpu), median(f.cpu)/firstCPU,
			float64(memory(rows[i].pid))/(1<<20), median(f.refused))
	}
	return nil
}
