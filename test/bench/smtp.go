package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// smtpLoad is one kind of traffic.
type smtpLoad struct {
	sessions, size int
	many           bool // many messages on a connection
}

func (l smtpLoad) String() string {
	return fmt.Sprintf("%d x %s, %s", l.sessions, sizeName(l.size), pick(l.many, "many", "one"))
}

func sizeName(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}

const (
	small = 1 << 10
	large = 10 << 20
)

// smtpLoads are the points that are measured.
func (b *bench) smtpLoads() (loads []smtpLoad) {
	if b.quick {
		return []smtpLoad{{20, small, false}, {20, small, true}, {20, 100 << 10, true}}
	}
	if !b.full {
		return []smtpLoad{{1, small, false}, {20, small, false}, {200, small, false}, {20, 100 << 10, false},
			{1, small, true}, {20, small, true}, {200, small, true}, {20, 10 << 10, true}, {20, 100 << 10, true},
			{1, large, true}, {20, large, true}}
	}
	for _, many := range []bool{false, true} {
		for _, sessions := range []int{1, 20, 200} {
			for _, size := range []int{small, 10 << 10, 100 << 10, large} {
				loads = append(loads, smtpLoad{sessions, size, many})
			}
		}
	}
	return loads
}

// smtpFigures are the measurements of a proxy at one point.
type smtpFigures struct {
	rate, cpu []float64 // messages a second, milliseconds each
	memory    int
	messages  int // a run
	spent     time.Duration
	note      string // why it is not measured further; the rate is how far it came
}

// smtpGoals are ours to the peers, over the points that count for each.
type smtpGoals struct {
	many, one, huge extreme
	peers           map[string]*extreme
}

// smtp measures messages through a proxy, from Postfix's load generator to
// Postfix's sink.
func (b *bench) smtp() error {
	for _, tool := range []string{"smtp-source", "smtp-sink"} {
		if missing(tool) {
			return nil
		}
	}
	sink, err := b.startSink()
	if err != nil {
		return err
	}
	rows := []*proxy{{name: "direct", port: sink}}
	for _, kind := range proxyKinds {
		row, err := b.startProxy(kind.name, sink)
		if err != nil {
			return err
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	fmt.Printf("\nMessages through a proxy, medians of %d runs in turns. Ratios are ours to the row.\n", b.rounds)
	fmt.Printf("CPU is that of all processes of the proxy, in seconds for 1000 messages; memory is theirs afterwards.\n\n")
	fmt.Printf("%-9s %-8s %-10s %-10s %10s %6s %10s %6s %10s\n", "sessions", "size", "a session", "row", "messages/s", "ratio", "CPU s/1000", "ratio", "memory MiB")
	goals := smtpGoals{many: extreme{atLeast: true, limit: 0.95}, one: extreme{atLeast: true, limit: 1}, huge: extreme{atLeast: true, limit: 0.8}, peers: map[string]*extreme{}}
	for _, peer := range []string{"nginx", "postfix", "proxsmtpd"} {
		goals.peers[peer] = &extreme{atLeast: true, limit: 1}
	}
	for _, l := range b.smtpLoads() {
		figures, err := b.smtpPoint(rows, l)
		if err != nil {
			return err
		}
		goals.compare(rows, figures, l)
	}
	goals.many.addTo(&b.goals, "20 sessions, many messages each, to HAProxy", "")
	goals.one.addTo(&b.goals, "one message a session, to HAProxy", "")
	goals.huge.addTo(&b.goals, "10 MiB, to HAProxy", "")
	for _, peer := range []string{"nginx", "postfix", "proxsmtpd"} {
		goals.peers[peer].addTo(&b.goals, "all points, to "+peer, "")
	}
	return nil
}

// smtpPoint measures all rows in turns and prints them. The last row is ours.
func (b *bench) smtpPoint(rows []*proxy, l smtpLoad) ([]*smtpFigures, error) {
	figures := make([]*smtpFigures, len(rows))
	for i, row := range rows {
		figures[i] = &smtpFigures{}
		if err := b.smtpPilot(row, l, figures[i]); err != nil {
			return nil, err
		}
	}
	err := inTurns(b.rounds, len(rows), func(_, i int) error {
		if f := figures[i]; f.note == "" && f.spent < b.smtpPatience() {
			return b.smtpRun(rows[i], l, f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ours := figures[len(figures)-1]
	for i, row := range rows {
		f := figures[i]
		rate, cpu := median(f.rate), median(f.cpu)
		fmt.Printf("%-9d %-8s %-10s %-10s %10.1f %6.2f ", l.sessions, sizeName(l.size), pick(l.many, "many", "one"), row.name, rate, median(ours.rate)/rate)
		if row.pid == 0 {
			fmt.Printf("%10s %6s %10s\n", "-", "-", "-")
		} else {
			fmt.Printf("%10.3f %6.2f %10.1f%s\n", cpu, median(ours.cpu)/cpu, mib(f.memory), pick(f.note == "", "", "  "+f.note))
		}
	}
	return figures, nil
}

// compare adds a point to the goals.
func (g *smtpGoals) compare(rows []*proxy, figures []*smtpFigures, l smtpLoad) {
	ours := median(figures[len(rows)-1].rate)
	for i, row := range rows {
		ratio := ours / median(figures[i].rate)
		switch {
		case g.peers[row.name] != nil:
			g.peers[row.name].point(ratio, l.String())
		case row.name != "haproxy":
		case l.size >= large:
			g.huge.point(ratio, l.String())
		case !l.many:
			g.one.point(ratio, l.String())
		case l.sessions == 20:
			g.many.point(ratio, l.String())
		}
	}
}

// smtpPilot finds how many messages fill a run. A proxy that does not bring
// through a few within the time limit is not tried again.
func (b *bench) smtpPilot(row *proxy, l smtpLoad, f *smtpFigures) error {
	f.messages = 2*l.sessions + 100
	if l.size >= large {
		f.messages = max(l.sessions, 4)
	}
	if err := b.smtpRun(row, l, f); err != nil || f.note != "" {
		return err
	}
	f.messages = max(l.sessions, min(int(f.rate[0]*b.smtpSeconds()), 60000))
	f.rate, f.cpu, f.spent = nil, nil, 0 // the first run also opened connections, filled caches
	return nil
}

// smtpSeconds is how long a run is to take.
func (b *bench) smtpSeconds() float64 { return pick(b.quick, 0.5, 1.5) }

// smtpPatience is how long a slow peer is measured at one point, however many
// rounds there are.
func (b *bench) smtpPatience() time.Duration {
	return time.Duration(2 * float64(b.rounds) * b.smtpSeconds() * float64(time.Second))
}

// smtpRun adds a run to the figures.
func (b *bench) smtpRun(row *proxy, l smtpLoad, f *smtpFigures) error {
	limit := pick(b.quick, 5*time.Second, 10*time.Second)
	if l.size >= large {
		limit *= 3
	}
	before := time.Duration(0)
	if row.pid != 0 {
		before = treeCPU(row.pid)
	}
	done, took, err := b.send(row.port, l, f.messages, limit)
	switch {
	case err != nil && (row.pid == 0 || row.name == "ours"):
		return fmt.Errorf("smtp-source through %s, %v: %w", row.name, l, err)
	case err != nil: // it is worth a line that a peer cannot do this
		f.note = "failed: " + strings.TrimSpace(err.Error())
	case done < f.messages:
		f.note = "stalled"
	}
	f.spent += took
	f.rate = append(f.rate, float64(done)/took.Seconds())
	if row.pid != 0 {
		f.cpu = append(f.cpu, (treeCPU(row.pid)-before).Seconds()*1000/float64(max(done, 1)))
		f.memory = treeMemory(row.pid)
	}
	return nil
}

// send sends messages until the time limit, and says how many were accepted,
// also if it failed.
func (b *bench) send(port int, l smtpLoad, messages int, limit time.Duration) (done int, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	args := []string{"-c", "-s", strconv.Itoa(l.sessions), "-m", strconv.Itoa(messages), "-l", strconv.Itoa(l.size),
		"-f", "ann@example.org", "-t", "bob@example.net", address(port)}
	if l.many {
		args = append([]string{"-d"}, args...)
	}
	// A file, as we would have to be woken for each number in a pipe.
	counter, err := os.Create(filepath.Join(b.dir, "counter"))
	if err != nil {
		return 0, 0, err
	}
	defer counter.Close()
	var problem strings.Builder
	cmd := exec.CommandContext(ctx, "smtp-source", args...)
	cmd.Stdout, cmd.Stderr = counter, &problem
	begin := time.Now()
	err = cmd.Run()
	took = time.Since(begin)
	if err == nil {
		return messages, took, nil
	}
	text, _ := os.ReadFile(counter.Name())
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = nil
	} else {
		err = fmt.Errorf("%w %s", err, &problem)
	}
	return lastCount(string(text)), took, err
}

// lastCount reads what smtp-source -c has printed: numbers, each over the one
// before. The last one may have been cut short.
func lastCount(text string) (most int) {
	for number := range strings.FieldsFuncSeq(text, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(number)
		most = max(most, n)
	}
	return most
}
