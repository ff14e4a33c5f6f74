package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/cluster"
	"postern/internal/connlimit"
	"postern/internal/stamp"
	"postern/internal/store"
)

// store measures what a check of a stamp costs, in a directory and in a store that gateways share, and what the limits over
// all gateways cost mail.
func (b *bench) store() error {
	if err := b.stampDirectory(); err != nil {
		return err
	}
	if missing("redis-server") || missing("redis-cli") {
		return nil
	}
	port, pid, err := b.startRedis()
	if err != nil {
		return err
	}
	client, err := openStore(port)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := b.stampStore(client, port); err != nil {
		return err
	}
	if err := b.storeLoad(client, pid); err != nil {
		return err
	}
	return b.mailWithLimits(port)
}

// clientAt is one of a million addresses.
func clientAt(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// stampDirectory looks for stamps in a directory that is full of them: every second one is there.
func (b *bench) stampDirectory() error {
	stamps := pick(b.quick, 100_000, 1_000_000)
	name := filepath.Join(b.dir, "stamps")
	if err := os.Mkdir(name, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(name)
	for i := range stamps {
		f, err := os.Create(filepath.Join(name, stamp.Name(clientAt(i))))
		if err != nil {
			return err
		}
		f.Close()
	}
	dir, err := stamp.OpenDir(name, time.Hour, "")
	if err != nil {
		return err
	}
	used := treeCPU(os.Getpid())
	const looks = 100_000
	each, err := b.looks(dir, stamps, looks)
	if err != nil {
		return err
	}
	cpu := micro(treeCPU(os.Getpid())-used) / float64(looks*b.rounds)
	fmt.Printf("\nA check of a stamp in a directory with %d: %.1f µs, median of %d runs; %.1f µs of processor\n", stamps, each, b.rounds, cpu)
	b.goals.add(each < 20, fmt.Sprintf("a check in a directory of %d stamps", stamps), "less than 20 µs", "%.1f µs", each)
	return nil
}

// looks gives the time of a check in microseconds.
func (b *bench) looks(s stamp.Store, stamps, n int) (float64, error) {
	var each []float64
	for range b.rounds {
		found, begin := 0, time.Now()
		for range n {
			_, fresh, err := s.Look(context.Background(), clientAt(rand.IntN(2*stamps)))
			if err != nil {
				return 0, err
			}
			if fresh {
				found++
			}
		}
		each = append(each, micro(time.Since(begin))/float64(n))
		if found < n/3 || found > n*2/3 {
			return 0, fmt.Errorf("%d of %d checks found a stamp, want half", found, n)
		}
	}
	return median(each), nil
}

// startRedis starts a store that keeps nothing on disk.
func (b *bench) startRedis() (port, pid int, err error) {
	if port, err = freePort(); err != nil {
		return 0, 0, err
	}
	log := filepath.Join(b.dir, "redis.log")
	pid, err = b.children.start(log, "redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", b.dir)
	if err != nil {
		return 0, 0, err
	}
	return port, pid, awaitChild("redis-server", pid, log, func() bool { return takes(port) })
}

func storeURL(port int) string { return "redis://" + address(port) }

func openStore(port int) (*store.Client, error) {
	s := store.Settings{StoreURL: storeURL(port), StoreTimeout: 5 * time.Second}
	o, err := s.Load()
	if err != nil {
		return nil, err
	}
	return store.Open(o, slog.New(slog.DiscardHandler)), nil
}

// stampStore looks for stamps in the store, and has the server say how often it was asked.
func (b *bench) stampStore(client *store.Client, port int) error {
	const stamps, looks = 10_000, 10_000
	shared := stamp.NewShared(client, time.Hour, 0)
	for i := range stamps {
		if err := shared.Touch(context.Background(), clientAt(i), "ann", "pop"); err != nil {
			return err
		}
	}
	before, err := requests(port)
	if err != nil {
		return err
	}
	each, err := b.looks(shared, stamps, looks)
	if err != nil {
		return err
	}
	after, err := requests(port)
	if err != nil {
		return err
	}
	trips := float64(after-before-1) / float64(b.rounds*looks)
	fmt.Printf("A check of a stamp in a store: %.0f µs, %.3f round trips\n", each, trips)
	b.goals.add(trips < 1.01, "a check in a store", "one round trip", "%.3f, %.0f µs", trips, each)
	return nil
}

// requests gives how often the store has read from its clients.
func requests(port int) (int, error) {
	out, err := exec.Command("redis-cli", "-p", strconv.Itoa(port), "INFO", "stats").Output()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(out), "total_reads_processed:")
	text, _, _ := strings.Cut(rest, "\r\n")
	return strconv.Atoi(text)
}

// storeLoad counts sessions in the store as fast as it goes, from one process that takes processors from it: what a store
// carries at least.
func (b *bench) storeLoad(client *store.Client, pid int) error {
	sessions := cluster.NewSessions(client, "bench")
	defer sessions.Close()
	sessions.Set(connlimit.SessionLimits{PerOrigin: 1000, Rate: 1e6})
	var rates, cpu []float64
	for range b.rounds {
		const callers = 32
		each := pick(b.quick, 500, 2000)
		var wg sync.WaitGroup
		used, begin := treeCPU(pid), time.Now()
		for range callers {
			wg.Go(func() {
				for range each {
					addr := clientAt(rand.IntN(100_000))
					sessions.Enter(context.Background(), addr)
					sessions.Leave(addr)
				}
			})
		}
		wg.Wait()
		rates = append(rates, callers*float64(each)/time.Since(begin).Seconds())
		cpu = append(cpu, micro(treeCPU(pid)-used)/(callers*float64(each)))
	}
	fmt.Printf("Sessions that begin and end, counted in the store: %.0f a second, %.0f µs of the store's processor each\n", median(rates), median(cpu))
	return nil
}

// mailWithLimits compares our proxy with limits over all gateways and without.
func (b *bench) mailWithLimits(store int) error {
	if missing("smtp-source") || missing("smtp-sink") {
		return nil
	}
	sink, err := b.startSink()
	if err != nil {
		return err
	}
	with := proxyKind{name: "limits", start: func(b *bench, in, out int, dir string) ([]string, error) {
		command, err := b.smtpProxy(in, out, dir)
		return append(command, "--clientip-store", storeURL(store), "--clientip-exempt", "127.0.0.0/8",
			"--cluster-limits=yes", "--max-sessions-per-address", "1000",
			"--max-rate-per-address", "1000000", "--max-refusals-per-address", "1000"), err
	}}
	var rows []*proxy
	for _, kind := range []proxyKind{with, {name: "ours", start: (*bench).smtpProxy}} {
		row, err := b.launch(kind, sink)
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	fmt.Printf("\nMessages through a proxy with limits over all gateways, and without; medians of %d runs in turns.\n\n", b.rounds)
	least := extreme{atLeast: true, limit: 0.9}
	for _, l := range []smtpLoad{{20, small, false}, {20, small, true}} {
		figures, err := b.smtpPoint(rows, l)
		if err != nil {
			return err
		}
		if figures[0].note != "" {
			return fmt.Errorf("with limits: %s", figures[0].note)
		}
		least.point(medianRatio(figures[0].rate, figures[1].rate), l.String())
	}
	least.addTo(&b.goals, "mail with limits over all gateways, to mail without", "")
	return nil
}
