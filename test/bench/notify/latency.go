package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"postern/internal/mxproto"
	"postern/internal/notify"
)

// latencyRequests is how many requests are sent, one at a time with pauses, to
// measure latency; each changes the state twice.
const latencyRequests = 1000

// latency measures the time from a change to n listeners' reading of it. The
// time of the change is the one in the message; clocks are the same.
func (b *bench) latency(n int) error {
	_, dir, err := b.pool(fmt.Sprintf("latency-%d", n))
	if err != nil {
		return err
	}
	defer b.stop()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	took := make([][]time.Duration, n)
	for i := range n {
		c, err := notify.Connect(ctx, notify.Source{Dial: func(context.Context) (net.Conn, error) {
			return net.Dial("unix", filepath.Join(dir, "notify"))
		}}, notify.Interest{Letters: "*"})
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			for {
				e, err := c.Next(ctx)
				if err != nil {
					return
				}
				if e.Kind == notify.Happened {
					took[i] = append(took[i], time.Since(e.Time))
				}
			}
		}()
	}
	control, err := newControl()
	if err != nil {
		return err
	}
	defer control.close()
	client := &mxproto.Client{Persistent: true, Dial: func(context.Context) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, "mx"))
	}}
	defer client.Close()
	for i := range latencyRequests {
		if _, err := client.Ask(ctx, "relayok 192.0.2.1 host.example 1234 127.0.0.1 25"); err != nil {
			return err
		}
		time.Sleep(time.Duration(1+i%7) * time.Millisecond)
		control.measure()
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	wg.Wait()
	fmt.Printf("latency, %3d listeners: %s\n", n, summary(slices.Concat(took...)))
	fmt.Printf("  a bare socket pair:   %s\n", summary(control.took))
	return nil
}

func summary(d []time.Duration) string {
	slices.Sort(d)
	at := func(p float64) time.Duration { return d[int(p*float64(len(d)-1))].Round(time.Microsecond) }
	return fmt.Sprintf("%6d messages, median %v, 90 %% %v, 99 %% %v, 99.9 %% %v, longest %v",
		len(d), at(0.5), at(0.9), at(0.99), at(0.999), at(1))
}

// A control shows what the machine itself takes from one goroutine's write to
// another's read of it.
type control struct {
	a, b net.Conn
	took []time.Duration
	got  chan time.Time
}

func newControl() (*control, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	c := &control{got: make(chan time.Time)}
	for i, conn := range []*net.Conn{&c.a, &c.b} {
		f := os.NewFile(uintptr(fds[i]), "control")
		*conn, err = net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	go func() {
		buf := make([]byte, 1)
		for {
			if _, err := c.b.Read(buf); err != nil {
				return
			}
			c.got <- time.Now()
		}
	}()
	return c, nil
}

func (c *control) measure() {
	start := time.Now()
	c.a.Write([]byte("x"))
	c.took = append(c.took, (<-c.got).Sub(start))
}

func (c *control) close() {
	c.a.Close()
	c.b.Close()
}
