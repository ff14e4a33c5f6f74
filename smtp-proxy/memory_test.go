package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

func TestAvailableMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		files  map[string]string
		memory int64
	}{
		{"machine", map[string]string{"proc/meminfo": "MemTotal:        2048 kB\nMemFree: 5 kB\n"}, 2 << 20},
		{"no limit", map[string]string{"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 2 << 20},
		{"limit", map[string]string{"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1048576\n"}, 1 << 20},
		{"limit above", map[string]string{"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "4096\n"}, 4096},
		{"limit of all", map[string]string{"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
	} {
		root := t.TempDir()
		for name, text := range tt.files {
			path := filepath.Join(root, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if got := availableMemory(root); got != tt.memory {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.memory)
		}
	}
	if got := availableMemory("/"); got < 64<<20 || got > 1<<50 {
		t.Errorf("this machine: %d", got)
	}
}

// TestMemoryBudget has as many messages under way as the budget allows: the next one is refused for now, and taken once
// there is room.
func TestMemoryBudget(t *testing.T) {
	t.Parallel()
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("filtered %v", filtered), func(t *testing.T) {
			b := testenv.StartBackend(t)
			args := []string{"--max-memory=300K", behind(b)}
			if filtered {
				args = append(args, startMultiplexor(t, scanWith(t, "F\n")).args()...)
			}
			p := startProxy(t, args...)
			began := make([]*dialog, 3)
			for i := range began {
				began[i] = greeted(t, p.addr)
				began[i].envelope()
				began[i].cmd("DATA", "354")
				began[i].send("Subject: x\r\n")
			}
			late := greeted(t, p.addr)
			late.envelope()
			if !filtered { // these need less
				late.cmd("DATA", "354")
				late = greeted(t, p.addr)
				late.envelope()
			}
			late.cmd("DATA", "452 4.3.1")
			late.envelope()
			late.send("BDAT 3 LAST\r\nx\r\n")
			late.expect("452 4.3.1")
			began[0].send("\r\nbody\r\n.\r\n")
			began[0].expect("250")
			late.envelope()
			late.cmd("DATA", "354")
			late.send("\r\nbody\r\n.\r\n")
			late.expect("250")
			_ = began[1].Close()
			testenv.Eventually(t, "room for the next message", func() bool {
				late.envelope()
				late.send("BDAT 3 LAST\r\nx\r\n")
				return late.expect("").Code == 250
			})
		})
	}
}

// TestUnfinishedHeadersCostLittle has sessions stop within a large header of short lines: each costs far less than its
// header.
func TestUnfinishedHeadersCostLittle(t *testing.T) {
	const sessions = 40
	for _, filtered := range []bool{false, true} {
		t.Run(fmt.Sprintf("filtered %v", filtered), func(t *testing.T) {
			var took atomic.Int64
			args := []string{"--upstream", "smtp://" + startSwallower(t, &took)}
			line, taken := "A: b\r\n", took.Load
			if filtered {
				m := startMultiplexor(t, scanWith(t, "F\n"))
				args = append(args, m.args()...)
				line = " c\r\n" // there is a limit for fields
				taken = func() int64 { return sizes(t, filepath.Join(m.spool, "*", "INPUTMSG")) * 4 / 3 }
			}
			header := strings.Repeat(line, testenv.Load(1<<18, 1<<20)/len(line)-100)
			p := startProxy(t, args...)
			before := heap()
			for range sessions {
				c := greeted(t, p.addr)
				c.envelope()
				c.cmd("DATA", "354")
				c.send("A: b\r\n" + header)
			}
			testenv.Eventually(t, "all headers to be taken", func() bool { return taken() >= sessions*int64(len(header)-100<<10) })
			other := greeted(t, p.addr)
			other.envelope()
			other.cmd("DATA", "354")
			other.send("\r\nbody\r\n.\r\n")
			other.expect("250")
			if cost := (heap() - before) / sessions; cost > filterCost*3/2 {
				t.Errorf("each session costs %d bytes", cost)
			}
			if used, least := p.memory.used.Load(), int64(sessions*streamCost); used < least {
				t.Errorf("the budget has %d bytes used, want at least %d", used, least)
			}
		})
	}
}

// startSwallower starts a server that takes messages and keeps nothing of them.
func startSwallower(t *testing.T, took *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { swallowAll(c, took) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func swallowAll(c net.Conn, took *atomic.Int64) {
	defer c.Close()
	fmt.Fprint(c, "220 hello\r\n")
	content := false
	lines := bufio.NewReaderSize(c, 1024)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		took.Add(int64(len(line)))
		reply := "250 Ok"
		switch {
		case content && string(line) != ".\r\n":
			continue
		case content:
			content = false
		case string(line) == "DATA\r\n":
			content, reply = true, "354 Go"
		}
		fmt.Fprint(c, reply+"\r\n")
	}
}

// sizes gives the bytes of the files that a pattern matches.
func sizes(t *testing.T, pattern string) (n int64) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// heap gives the bytes that are in use. What pools and finalizers hold back goes only when the collector has run several
// times.
func heap() int64 {
	for last := int64(math.MaxInt64); ; {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		now := int64(m.HeapAlloc)
		if now > last-1<<10 {
			return now
		}
		last = now
	}
}
