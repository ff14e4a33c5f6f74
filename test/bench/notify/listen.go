package main

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
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

// listen is the other process: it opens listeners, a tenth of which never
// reads, says "ready", and after "finish" on standard input what came of them.
func listen(socket string, n int, mix []string) error {
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
	report(readers, last, start)
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

// report waits until every reader has all it should get, and prints it.
func report(readers []*listener, last uint64, start time.Time) {
	complete := func(l *listener, edges uint64) bool {
		if l.extended && strings.Contains(l.interest, "*") {
			return l.at.Load() == last
		}
		return !hasEdges(l.interest) || l.edges.Load() == edges
	}
	var edges, sum uint64
	for deadline := start.Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		edges, sum = 0, 0
		for _, l := range readers {
			if l.at.Load() == last && hasEdges(l.interest) {
				edges, sum = l.edges.Load(), l.sum.Load()
				break
			}
		}
		missing := 0
		for _, l := range readers {
			if !complete(l, edges) {
				missing++
			}
		}
		if missing == 0 {
			break
		}
	}
	var got, lost, gaps, short, wrong, closed uint64
	for _, l := range readers {
		got += l.messages.Load()
		lost += l.lost.Load()
		gaps += l.gaps.Load()
		if l.closed.Load() {
			closed++
		}
		if !complete(l, edges) {
			short++
		} else if hasEdges(l.interest) && l.sum.Load() != sum {
			wrong++
		}
	}
	fmt.Printf("published %d, %d of them Y or Z; readers got %d, all within %.1f s of the end\n", last, edges, got, time.Since(start).Seconds())
	fmt.Printf("readers %d: incomplete %d, Y and Z wrong %d, numbers missing %d, reported lost %d, closed %d\n", len(readers), short, wrong, gaps, lost, closed)
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
