package main

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A listener checks what it is sent.
type listener struct {
	interest string
	extended bool
	conn     net.Conn

	messages atomic.Uint64
	at       atomic.Uint64 // number of the last message, in the extended form
	edges    atomic.Uint64 // how many Y and Z
	sum      atomic.Uint64 // of them, in order
	lost     atomic.Uint64
	gaps     atomic.Uint64 // numbers that are missing although all were asked for
	closed   atomic.Bool
}

// listenersEnv names the socket, in the process that is only listeners.
const listenersEnv = "POSTERN_BENCH_LISTENERS"

// listeners is that process: it opens listeners, a tenth of which never reads,
// says "ready", and after "finish" on standard input what came of them. Its
// arguments are how many, and their interest lines.
func listeners() error {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	socket, mix := os.Getenv(listenersEnv), strings.Fields(os.Args[2])
	var readers []*listener
	var silent []net.Conn
	var all sync.WaitGroup
	for i := range n {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		if i%10 == 9 {
			io.WriteString(conn, "?*\n")
			silent = append(silent, conn)
			continue
		}
		l := &listener{interest: mix[i%len(mix)], conn: conn}
		if i == 0 {
			l.interest = "?*+" // what the others are compared with
		}
		l.extended = strings.Contains(l.interest, "+")
		io.WriteString(conn, l.interest+"\n")
		readers = append(readers, l)
		all.Add(1)
		go func() { defer all.Done(); l.read() }()
	}
	time.Sleep(200 * time.Millisecond) // a hub answers classic listeners nothing
	for _, l := range readers {
		l.messages.Store(0)
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	start := time.Now()
	last, err := lastNumber(socket)
	if err != nil {
		return err
	}
	fmt.Println(report(readers, last, start).line())
	for _, l := range readers {
		l.conn.Close()
	}
	for _, c := range silent {
		c.Close()
	}
	all.Wait()
	return nil
}

// lastNumber asks for the number of the last message.
func lastNumber(socket string) (uint64, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	io.WriteString(conn, "?+\n")
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if f := strings.Fields(line); f[0] == "*EXT" {
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
}

// heard is what listeners got, in sum.
type heard struct {
	published, edges int // messages, and how many of them were Y or Z
	readers          int
	got              int // messages read
	short            int // readers that do not have all they should
	wrong            int // that have not every Y and Z in order
	gaps             int // numbers that are missing where all were asked for
	lost             int // messages that were reported lost in the extended form
	closed           int // readers that were closed
	millis           int // after the end until they had it
}

// fields are in the order of the line that one process tells the other.
func (h *heard) fields() []any {
	return []any{&h.published, &h.edges, &h.readers, &h.got, &h.short, &h.wrong, &h.gaps, &h.lost, &h.closed, &h.millis}
}

func (h heard) line() string {
	var text []string
	for _, field := range h.fields() {
		text = append(text, strconv.Itoa(*field.(*int)))
	}
	return strings.Join(text, " ")
}

func parseHeard(line string) (h heard, err error) {
	if _, err := fmt.Sscan(line, h.fields()...); err != nil {
		return h, fmt.Errorf("listeners: %q: %w", line, err)
	}
	return h, nil
}

// plus adds what was heard in another storm.
func (h heard) plus(o heard) heard {
	theirs := o.fields()
	for i, field := range h.fields() {
		*field.(*int) += *theirs[i].(*int)
	}
	return h
}

func (h heard) String() string {
	return fmt.Sprintf("published %d, %d of them Y or Z; %d readers got %d, all within %d ms of the end: incomplete %d, Y and Z wrong %d, numbers missing %d, reported lost %d, closed %d",
		h.published, h.edges, h.readers, h.got, h.millis, h.short, h.wrong, h.gaps, h.lost, h.closed)
}

// report waits until every reader has all it should get, and says what they got.
func report(readers []*listener, last uint64, start time.Time) heard {
	var edges, sum uint64
	for deadline := start.Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		edges, sum = 0, 0
		for _, l := range readers {
			if l.at.Load() == last && hasEdges(l.interest) {
				edges, sum = l.edges.Load(), l.sum.Load()
				break
			}
		}
		if !slices.ContainsFunc(readers, func(l *listener) bool { return !l.complete(last, edges) }) {
			break
		}
	}
	h := heard{published: int(last), edges: int(edges), readers: len(readers), millis: int(time.Since(start).Milliseconds())}
	for _, l := range readers {
		h.got += int(l.messages.Load())
		h.lost += int(l.lost.Load())
		h.gaps += int(l.gaps.Load())
		if l.closed.Load() {
			h.closed++
		}
		if !l.complete(last, edges) {
			h.short++
		} else if hasEdges(l.interest) && l.sum.Load() != sum {
			h.wrong++
		}
	}
	return h
}

// complete says whether a listener has the last message, or as many edges.
func (l *listener) complete(last, edges uint64) bool {
	if l.extended && strings.Contains(l.interest, "*") {
		return l.at.Load() == last
	}
	return !hasEdges(l.interest) || l.edges.Load() == edges
}

func hasEdges(interest string) bool {
	return strings.Contains(interest, "*") || strings.Contains(interest, "YZ")
}

func (l *listener) read() {
	r := bufio.NewReaderSize(l.conn, 32<<10)
	h := fnv.New64a()
	whole := l.extended && strings.Contains(l.interest, "*")
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			l.closed.Store(true)
			return
		}
		if line[0] == '*' || line[0] == '=' {
			if n, ok := bytes.CutPrefix(line, []byte("*LOST ")); ok {
				v, _ := strconv.ParseUint(strings.TrimSpace(string(n)), 10, 64)
				l.lost.Add(v)
			}
			continue
		}
		l.messages.Add(1)
		letter := line[0]
		if l.extended {
			var n uint64
			i := 0
			for ; line[i] != ' '; i++ {
				n = n*10 + uint64(line[i]-'0')
			}
			if at := l.at.Load(); whole && at > 0 && n != at+1 {
				l.gaps.Add(n - at - 1)
			}
			l.at.Store(n)
			letter = line[i+1+bytes.IndexByte(line[i+1:], ' ')+1]
		}
		if letter == 'Y' || letter == 'Z' {
			h.Write([]byte{letter})
			l.sum.Store(h.Sum64())
			l.edges.Add(1)
		}
	}
}
