package main

import (
	"fmt"
	"syscall"
)

// originalQueue is the longest queue that the original can be told to have.
const originalQueue = 128

// longQueue has far more clients than workers.
func (b *bench) longQueue(there bool) error {
	fmt.Printf("\nFour workers that take a millisecond, and a queue of 10000 (the original: %d, its most)\n\n%-12s %-8s %10s %9s\n", originalQueue, "row", "clients", "requests/s", "refused")
	for _, clients := range []int{256, 5000} {
		for _, program := range []string{original, b.ours("multiplexor")} {
			if program == original && (!there || clients > 256) { // it dies above 1024 descriptors
				continue
			}
			s, err := b.startServer(fmt.Sprintf("queue-%d-%t", clients, program == original), poolKind{program: program, workers: 4, queue: pick(program == original, originalQueue, 10000)})
			if err != nil {
				return err
			}
			requests := max(4000, clients)
			o, _, err := s.measured(load{request: "sleepok 1000", clients: clients, requests: requests})
			if err != nil {
				return fmt.Errorf("%s, %d clients: %w", program, clients, err)
			}
			refused := 100 * float64(o.refused) / float64(requests)
			name := "mimedefang"
			if program != original {
				name = "ours"
				b.goals.add(o.refused == 0, fmt.Sprintf("queue of 10000, 4 workers, %d clients: refused", clients), "none", "%d of %d", o.refused, requests)
			}
			fmt.Printf("%-12s %-8d %10.0f %8.1f%%\n", name, clients, o.rate(), refused)
		}
	}
	return nil
}

// backlog counts how many clients may connect while the multiplexor does
// nothing at all.
func (b *bench) backlog(there bool) error {
	fmt.Printf("\nClients that may connect while the multiplexor is stopped\n\n")
	for _, program := range []string{original, b.ours("multiplexor")} {
		if program == original && !there {
			continue
		}
		s, err := b.startServer(fmt.Sprintf("backlog-%t", program == original), poolKind{program: program, workers: 1})
		if err != nil {
			return err
		}
		syscall.Kill(s.pid, syscall.SIGSTOP)
		if err := await("the stop of a multiplexor", func() bool { return state(s.pid) == 'T' }); err != nil {
			return err
		}
		n, err := connectUntilFull(s.socket, 6000)
		syscall.Kill(s.pid, syscall.SIGCONT)
		if err != nil {
			return err
		}
		fmt.Printf("%-12s %d\n", pick(program == original, "mimedefang", "ours"), n)
		if program != original {
			b.goals.add(n >= 4096, "listen backlog", "at least 4096", "%d", n)
		}
	}
	return nil
}

// connectUntilFull connects until no connection is taken, at most so many, and
// closes them.
func connectUntilFull(socket string, most int) (n int, err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	for ; n < most; n++ {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return n, err
		}
		fds = append(fds, fd)
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err == syscall.EAGAIN {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
	return n, nil
}
