package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// filterWorkers is how many workers a multiplexor has.
const filterWorkers = 10

// A filtered is a way through a filter, or to the same server without one.
type filtered struct {
	proxy
	queue string // of the Postfix at its end
	trees []int  // processes that count with all below them
	alone []int  // and those that count alone: multiplexors, not their workers
	asked string // socket of the multiplexor
	smtpFigures
}

// perlFilter lets everything pass.
const perlFilter = `sub filter_begin { return 0 }
sub filter { return action_accept() }
sub filter_multipart { return action_accept() }
sub filter_end { return 0 }
1;
`

// filter measures messages through a filter, by way of smtp-proxy and by way of what MIMEDefang has for it: the milter
// and the multiplexor, at the smtpd of Postfix. Behind is the same kind of Postfix, which throws them away, or a sink.
// All spools and queues are in memory, as /var/spool/MIMEDefang is on most hosts: a disk would be measured else.
func (b *bench) filter() error {
	defer func(dir string) { b.dir = dir }(b.dir)
	b.dir = inMemory(b.dir)
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	for _, tool := range []string{"smtp-source", "smtp-sink", "postfix", postfixMaster, "mimedefang", original} {
		if missing(tool) {
			b.goals.unmeasured("messages through a filter", "", "no "+tool)
			return b.filterBasic()
		}
	}
	if !asRoot() {
		b.goals.unmeasured("messages through a filter", "", "not root")
		return b.filterBasic()
	}
	rows, err := b.filteredRows(b.filterKinds())
	if err != nil {
		return err
	}
	fmt.Printf("\nMessages through a filter, medians of %d runs in turns; a session each, 20 at a time. Queues and spools are in %s.\n", b.rounds, b.dir)
	fmt.Printf("CPU is that of all processes but load, sink and workers, in seconds for 1000 messages; workers, %d of them, by themselves.\n\n", filterWorkers)
	fmt.Printf("%-8s %-24s %10s %10s\n", "size", "row", "messages/s", "CPU s/1000")
	loads := []smtpLoad{{20, small, false}}
	if !b.quick {
		loads = append(loads, smtpLoad{20, 100 << 10, false}, smtpLoad{1, small, false})
	}
	for _, l := range loads {
		if err := b.filteredPoint(rows, l); err != nil {
			return err
		}
		if l == loads[0] {
			b.filteredGoals(rows)
		}
	}
	b.children.stop()
	return b.filterBasic()
}

// A filterKind is a worker, and what it loads.
type filterKind struct{ name, worker, script string }

// filterKinds are the workers that are measured.
func (b *bench) filterKinds() []filterKind {
	return []filterKind{{"c", b.worker, ""}, {"perl", "/usr/bin/mimedefang.pl", filepath.Join(b.dir, "filter.pl")}}
}

// filteredRows starts all ways, with each kind of worker.
func (b *bench) filteredRows(kinds []filterKind) (rows []*filtered, err error) {
	sink, err := b.startSink()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "filter.pl"), []byte(perlFilter), 0o644); err != nil {
		return nil, err
	}
	add := func(row *filtered, err error) error {
		rows = append(rows, row)
		return err
	}
	if err := add(b.queueing("postfix", "")); err != nil {
		return nil, err
	}
	server := rows[0]
	for _, kind := range kinds {
		if missing(kind.worker) {
			continue
		}
		pool := poolKind{worker: kind.worker, filter: kind.script, workers: filterWorkers, queue: 128, cold: true}
		if err := add(b.milter("milter-"+kind.name, pool)); err != nil {
			return nil, err
		}
		if err := add(b.filtering("ours-"+kind.name, pool, server.port, server)); err != nil {
			return nil, err
		}
		if err := add(b.filtering("sink-"+kind.name, pool, sink, nil)); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

const queueingServices = `%s inet n - n - 450 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// queueing starts a Postfix that queues messages and throws them away, with a milter if one is named.
func (b *bench) queueing(name, milter string) (*filtered, error) {
	row := &filtered{}
	p, err := b.launch(proxyKind{name: name, start: func(b *bench, in, _ int, dir string) ([]string, error) {
		row.queue = filepath.Join(dir, "queue")
		main := fmt.Sprintf(postfixMain, dir) + "default_transport = discard:\nin_flow_delay = 0\nqmgr_message_active_limit = 100000\n"
		if milter != "" {
			main += "smtpd_milters = unix:" + milter + "\nmilter_default_action = tempfail\n"
		}
		return postfixIn(dir, main, fmt.Sprintf(queueingServices, address(in)))
	}}, 0)
	if err != nil {
		return nil, err
	}
	row.proxy, row.trees = *p, []int{p.pid}
	return row, nil
}

// milter starts the milter mimedefang, its multiplexor, and a Postfix that asks them.
func (b *bench) milter(name string, pool poolKind) (*filtered, error) {
	pool.program = original
	mx, err := b.startServer(name, pool)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(mx.socket)
	socket, log := filepath.Join(dir, "milter"), filepath.Join(b.dir, name+".milter.log")
	pid, err := b.children.start(log, "mimedefang", "-D", "-U", account, "-m", mx.socket, "-z", dir, "-p", socket, "-r", "-s", "-t", "-q", "-b", "200")
	if err != nil {
		return nil, err
	}
	if err := awaitChild("mimedefang", pid, log, func() bool { return os.Chmod(socket, 0o666) == nil }); err != nil {
		return nil, err
	}
	row, err := b.queueing(name, socket)
	if err != nil {
		return nil, err
	}
	row.trees, row.alone, row.asked = append(row.trees, pid), []int{mx.pid}, mx.socket
	return row, nil
}

// filtering starts smtp-proxy and our multiplexor in front of a port, of a Postfix or of a sink.
func (b *bench) filtering(name string, pool poolKind, port int, behind *filtered) (*filtered, error) {
	pool.program = b.ours("multiplexor")
	mx, err := b.startServer(name, pool)
	if err != nil {
		return nil, err
	}
	p, err := b.launch(proxyKind{name: name, start: func(b *bench, in, out int, dir string) ([]string, error) {
		args, err := b.smtpProxy(in, out, dir)
		return append(args, "--user", account, "--multiplexor", mx.socket, "--spool", filepath.Dir(mx.socket), "--relayok", "--senderok", "--recipok",
			"--client-lookup=no"), err
	}}, port)
	if err != nil {
		return nil, err
	}
	row := &filtered{proxy: *p, trees: []int{p.pid}, alone: []int{mx.pid}, asked: mx.socket}
	if behind != nil {
		row.queue, row.trees = behind.queue, append(row.trees, behind.trees...)
	}
	return row, nil
}

// used gives the CPU time of what is measured.
func (r *filtered) used() (t time.Duration) {
	for _, pid := range r.trees {
		t += treeCPU(pid)
	}
	for _, pid := range r.alone {
		t += cpu(pid)
	}
	return t
}

// drain waits until the queue is empty.
func (r *filtered) drain() error {
	if r.queue == "" {
		return nil
	}
	return await("the queue of "+r.name, func() bool {
		names, _ := filepath.Glob(filepath.Join(r.queue, "[ia]*", "*")) // incoming and active
		return len(names) == 0
	})
}

// filteredPoint measures all rows in turns and prints them.
func (b *bench) filteredPoint(rows []*filtered, l smtpLoad) error {
	for _, r := range rows {
		r.smtpFigures = smtpFigures{messages: 4*l.sessions + 40}
		for range 2 { // the first run also starts workers, which takes Perl seconds
			if err := b.filteredRun(r, l); err != nil {
				return err
			}
		}
		// Enough for what begins anew with each run to be no matter: connections to Postfix, and its processes.
		r.messages = max(20*l.sessions, int(r.rate[1]*2*b.smtpSeconds()))
		r.rate, r.cpu = nil, nil
	}
	err := inTurns(b.rounds, len(rows), func(_, i int) error { return b.filteredRun(rows[i], l) })
	if err != nil {
		return err
	}
	for _, r := range rows {
		fmt.Printf("%-8s %-24s %10.1f %10.3f\n", pick(l.sessions == 1, "1 x ", "20 x ")+sizeName(l.size), r.name, median(r.rate), median(r.cpu))
	}
	return nil
}

func (b *bench) filteredRun(r *filtered, l smtpLoad) error {
	before := r.used()
	done, took, err := b.send(r.port, l, r.messages, 30*time.Second)
	if err != nil {
		return fmt.Errorf("smtp-source through %s: %w", r.name, err)
	}
	if err := r.drain(); err != nil {
		return err
	}
	r.rate = append(r.rate, float64(done)/took.Seconds())
	r.cpu = append(r.cpu, (r.used()-before).Seconds()*1000/float64(max(done, 1)))
	return nil
}

// filteredGoals compares ours with the others.
func (b *bench) filteredGoals(rows []*filtered) {
	named := map[string]*filtered{}
	for _, r := range rows {
		named[r.name] = r
	}
	compare := func(about, ours, theirs string, least float64) {
		a, c := named[ours], named[theirs]
		if a == nil || c == nil {
			return
		}
		ratio := median(a.rate) / median(c.rate)
		b.goals.add(ratio >= least, about, fmt.Sprintf("at least %g", least), "%.2f", ratio)
	}
	compare("filtered, to the same Postfix alone, messages/s", "ours-c", "postfix", 0.9)
	compare("filtered before a sink, to the milter, messages/s", "sink-c", "milter-c", 5)
	compare("the same Postfix behind, to the milter, messages/s", "ours-c", "milter-c", 1)
	compare("mimedefang.pl, to the milter, messages/s", "ours-perl", "milter-perl", 1.5)
	ratio := median(named["ours-c"].cpu) / median(named["milter-c"].cpu)
	b.goals.add(ratio <= 0.5, "CPU outside the workers, to the milter", "at most 0.5", "%.2f", ratio)
}

// filterBasic runs the benchmarks of single packages: how fast filter-basic reads an ordinary message, and the worst of
// 10 MiB, and what the working directory of a small message costs.
func (b *bench) filterBasic() error {
	times, err := b.benchmarks("./filters/filter-basic", "Ordinary|Worst", pick(b.quick, "1x", "5x"))
	if err != nil {
		return err
	}
	worst, name := time.Duration(0), ""
	for what, one := range times {
		if one.took > worst && strings.HasPrefix(what, "Worst/") {
			worst, name = one.took, strings.TrimPrefix(what, "Worst/")
		}
	}
	rate := times["Ordinary/filter"].rate
	b.goals.add(rate >= 100, "filter-basic, an ordinary message", "at least 100 MB/s", "%.0f MB/s", rate)
	b.goals.add(worst <= 2*time.Second, "filter-basic, the worst message of 10 MiB", "at most 2 s", "%v (%s)", worst.Round(time.Millisecond), name)
	ratio := times["Ordinary/all"].took.Seconds() / times["Ordinary/one"].took.Seconds()
	b.goals.add(ratio <= 1.5, "all views of an ordinary message, to one", "at most 1.5 times", "%.2f", ratio)
	if times, err = b.benchmarks("./internal/workdir", "Directory", pick(b.quick, "500x", "5000x")); err != nil {
		return err
	}
	took := times["Directory"].took
	b.goals.add(took <= 150*time.Microsecond, "the working directory of a small message", "at most 150 us", "%v", took.Round(time.Microsecond))
	return nil
}

// A benchmark is what go test says of one.
type benchmark struct {
	took time.Duration
	rate float64 // MB/s, if it has one
}

// benchmarks runs those of a package, and prints what go test says. Names go to the first hyphen.
func (b *bench) benchmarks(pkg, which, times string) (map[string]benchmark, error) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", which, "-benchtime", times, pkg)
	cmd.Env = append(os.Environ(), "TMPDIR="+b.dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w\n%s", pkg, err, out)
	}
	fmt.Printf("\n%s\n\n%s", pkg, out)
	return readBenchmarks(string(out)), nil
}

// readBenchmarks reads what go test says of benchmarks.
func readBenchmarks(text string) map[string]benchmark {
	found := map[string]benchmark{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line) // BenchmarkWorst/7z-2 3 1234 ns/op 56.7 MB/s ...
		if len(words) < 4 || words[3] != "ns/op" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(words[0], "Benchmark"), "-")
		ns, _ := strconv.ParseFloat(words[2], 64)
		one := benchmark{took: time.Duration(ns)}
		if len(words) > 5 && words[5] == "MB/s" {
			one.rate, _ = strconv.ParseFloat(words[4], 64)
		}
		found[name] = one
	}
	return found
}
