package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"postern/internal/mxproto"
)

// storm compares the rate of the pool without listeners to that with them.
func (b *bench) storm() error {
	fmt.Printf("storm: %d requests, %d workers, %d clients; listeners %d, interests %q, a tenth never reads\n",
		b.requests, workers, workers, b.listeners, b.mix)
	var without, with, cost, costWith []float64
	for round := range b.rounds {
		for _, listeners := range []int{0, b.listeners} {
			rate, processor, err := b.stormOnce(fmt.Sprintf("storm-%d-%d", round, listeners), listeners)
			if err != nil {
				return err
			}
			if listeners == 0 {
				without, cost = append(without, rate), append(cost, processor)
			} else {
				with, costWith = append(with, rate), append(costWith, processor)
			}
		}
	}
	fmt.Printf("requests a second: %.0f without listeners, %.0f with: ratio of the medians %.2f\n",
		median(without), median(with), median(with)/median(without))
	fmt.Printf("processor a request, of all processes, while requests run: %.1f µs without, %.1f µs with: %.2f\n\n",
		median(cost), median(costWith), median(cost)/median(costWith))
	return nil
}

func (b *bench) stormOnce(name string, listeners int) (rate, processor float64, err error) {
	mx, dir, err := b.pool(name)
	if err != nil {
		return 0, 0, err
	}
	defer b.stop()
	if _, err := b.load(dir, 2000); err != nil { // workers are there, caches are warm
		return 0, 0, err
	}
	var child *exec.Cmd
	var in io.WriteCloser
	var out *bufio.Reader
	if listeners > 0 {
		if child, in, out, err = b.listenTo(dir, listeners); err != nil {
			return 0, 0, err
		}
	}
	childPid := 0
	if child != nil {
		childPid = child.Process.Pid
	}
	before := used(mx.Process.Pid, childPid)
	took, err := b.load(dir, b.requests)
	if err != nil {
		return 0, 0, err
	}
	spent := used(mx.Process.Pid, childPid).since(before)
	rate = float64(b.requests) / took.Seconds()
	fmt.Printf("  %4d listeners: %6.0f requests a second; %v; multiplexor %s\n", listeners, rate, spent, memory(mx.Process.Pid))
	if child != nil {
		io.WriteString(in, "finish\n")
		text, _ := io.ReadAll(out)
		for line := range strings.Lines(string(text)) {
			fmt.Print("       ", line)
		}
		fmt.Printf("       afterwards: %s\n", memory(mx.Process.Pid))
	}
	return rate, float64(spent.total()) / float64(b.requests) / 1000, nil
}

// listenTo starts the process of the listeners and waits until they listen.
func (b *bench) listenTo(dir string, n int) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd = exec.Command(self, "-listeners", strconv.Itoa(n), "-mix", b.mix)
	cmd.Env = append(os.Environ(), "BENCH_LISTEN="+filepath.Join(dir, "notify"))
	if in, err = cmd.StdinPipe(); err != nil {
		return nil, nil, nil, err
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := b.start(cmd); err != nil {
		return nil, nil, nil, err
	}
	out = bufio.NewReader(pipe)
	if line, err := out.ReadString('\n'); line != "ready\n" {
		return nil, nil, nil, fmt.Errorf("listeners: %q, %v", line, err)
	}
	return cmd, in, out, nil
}

// load sends n requests over as many persistent connections as there are
// workers and says how long that took.
func (b *bench) load(dir string, n int) (time.Duration, error) {
	client := &mxproto.Client{Persistent: true, Dial: func(ctx context.Context) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, "mx"))
	}}
	defer client.Close()
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	start := time.Now()
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range n / workers {
				if reply, err := client.Ask(context.Background(), "relayok 192.0.2.1 host.example 1234 127.0.0.1 25"); err != nil {
					errs <- fmt.Errorf("request: %q %w", reply, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return time.Since(start), nil
	}
}

// memory is what the kernel says of a process' memory.
func memory(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	var s []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmHWM:") {
			s = append(s, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(s, ", ")
}
