package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// smtpRow is a way from smtp-source to smtp-sink.
type smtpRow struct {
	name string
	port int
	pid  int // of the proxy, 0 for none
}

// smtpLoad is one kind of traffic.
type smtpLoad struct {
	sessions, size, messages int
	many                     bool // many messages on a connection
}

// smtp measures messages through a proxy, from Postfix's load generator to
// Postfix's sink.
func (b *bench) smtp() error {
	for _, tool := range []string{"smtp-source", "smtp-sink"} {
		if missing(tool) {
			return nil
		}
	}
	rows, err := b.startProxies()
	if err != nil {
		return err
	}
	defer b.procs.stop()
	loads := []smtpLoad{
		{1, 1 << 10, 1000, false}, {20, 1 << 10, 3000, false},
		{20, 1 << 10, 8000, true}, {20, 10 << 10, 6000, true}, {20, 100 << 10, 1500, true}, {20, 10 << 20, 20, true},
		{200, 1 << 10, 8000, true},
	}
	if b.quick {
		loads = []smtpLoad{{20, 1 << 10, 1000, false}, {20, 1 << 10, 3000, true}}
	}
	fmt.Printf("\nMessages through a proxy, medians of %d runs in turns. Ratios to the second row, if HAProxy is there.\n\n", b.rounds)
	fmt.Printf("%-9s %-9s %-11s %-12s %10s %6s %12s %6s %9s\n", "sessions", "bytes", "a session", "row", "messages/s", "ratio", "CPU ms each", "ratio", "RSS MiB")
	for _, l := range loads {
		if err := b.smtpPoint(rows, l); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) startProxies() ([]smtpRow, error) {
	var rows []smtpRow
	add := func(name, program string, args ...string) error {
		pid, err := b.procs.start(filepath.Join(b.dir, name+".log"), program, args...)
		if err != nil {
			return err
		}
		port := rows[len(rows)-1].port
		rows[len(rows)-1].pid = pid
		return await(name, func() bool {
			c, err := net.Dial("tcp4", address(port))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	row := func(name string) (int, error) {
		port, err := freePort()
		rows = append(rows, smtpRow{name: name, port: port})
		return port, err
	}
	sink, err := row("direct")
	if err != nil {
		return nil, err
	}
	args := []string{address(sink), "4096"}
	if asRoot() {
		args = append([]string{"-u", account}, args...)
	}
	if err := add("smtp-sink", "smtp-sink", args...); err != nil {
		return nil, err
	}
	rows[0].pid = 0 // the sink is no proxy
	if !missing("haproxy") {
		port, err := row("haproxy")
		if err != nil {
			return nil, err
		}
		settings := filepath.Join(b.dir, "haproxy.cfg")
		text := fmt.Sprintf("defaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n"+
			"listen l\n bind %s\n server s %s\n", address(port), address(sink))
		if err := os.WriteFile(settings, []byte(text), 0o644); err != nil {
			return nil, err
		}
		if err := add("haproxy", "haproxy", "-db", "-q", "-f", settings); err != nil {
			return nil, err
		}
	}
	port, err := row("ours")
	if err != nil {
		return nil, err
	}
	return rows, add("ours", filepath.Join(b.bin, "smtp-proxy"), "--smtp", "tcp:"+address(port), "--upstream", "smtp://"+address(sink),
		"--maxloadavg", "0", "--max-sessions-per-address", "0", "--max-transactions", "0", "--log-level", "warn")
}

func (b *bench) smtpPoint(rows []smtpRow, l smtpLoad) error {
	rate, cost := make([][]float64, len(rows)), make([][]float64, len(rows))
	for range b.rounds {
		for i, row := range rows {
			args := []string{"-s", strconv.Itoa(l.sessions), "-m", strconv.Itoa(l.messages), "-l", strconv.Itoa(l.size),
				"-f", "ann@example.org", "-t", "bob@example.net", address(row.port)}
			if l.many {
				args = append([]string{"-d"}, args...)
			}
			before, begin := cpu(row.pid), time.Now()
			if out, err := exec.Command("smtp-source", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("smtp-source through %s: %w\n%s", row.name, err, out)
			}
			n := float64(l.messages)
			rate[i] = append(rate[i], n/time.Since(begin).Seconds())
			cost[i] = append(cost[i], (cpu(row.pid)-before).Seconds()*1000/n)
		}
	}
	kind := "one"
	if l.many {
		kind = "many"
	}
	// Nothing is faster than no proxy, so the yardstick is the first proxy.
	const yardstick = 1
	for i, row := range rows {
		fmt.Printf("%-9d %-9d %-11s %-12s %10.0f %6.2f %12.3f %6.2f %9.1f\n", l.sessions, l.size, kind, row.name,
			median(rate[i]), median(rate[i])/median(rate[yardstick]), median(cost[i]), median(cost[i])/median(cost[yardstick]),
			float64(memory(row.pid))/(1<<20))
	}
	return nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// freePort finds a TCP port that nothing listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
