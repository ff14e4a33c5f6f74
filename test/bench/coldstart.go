package main

import (
	"fmt"
	"syscall"
	"time"
)

// loading is how long the worker of a cold start takes before it is ready.
const loading = 100 * time.Millisecond

// coldStart measures the time from the moment that the first worker's program
// is ready to the client's reading its answer. The worker says in its answer
// when that was.
func (b *bench) coldStart(there bool) error {
	slow, err := b.compile("worker", fmt.Sprintf("-DLOADING_US=%d", loading.Microseconds()))
	if err != nil {
		return err
	}
	took := map[bool][]time.Duration{}
	for round := range pick(b.quick, 8, 40) {
		for _, program := range []string{original, b.ours("multiplexor")} {
			if program == original && !there {
				continue
			}
			s, err := b.startServer(fmt.Sprintf("cold-%d-%t", round, program == original), poolKind{program: program, worker: slow, workers: 4, cold: true})
			if err != nil {
				return err
			}
			late, err := s.firstAnswer()
			if err != nil {
				return fmt.Errorf("%s: %w", program, err)
			}
			took[program == original] = append(took[program == original], late)
			b.children.stop()
		}
	}
	fmt.Printf("\nA cold start: from the first worker's being ready, after %v of loading, to the client's reading its answer\n\n", loading)
	for _, theirs := range []bool{true, false} {
		if len(took[theirs]) > 0 {
			fmt.Printf("%-12s %s\n", pick(theirs, "mimedefang", "ours"), spread(took[theirs]))
		}
	}
	last := took[false][len(took[false])-1]
	b.goals.add(last < 20*time.Millisecond, "cold start: first answer after its worker is ready", "within 20 ms", "%v at most in %d starts", last.Round(time.Microsecond), len(took[false]))
	return nil
}

// firstAnswer makes one request and gives the time since the worker was ready.
func (s *server) firstAnswer() (time.Duration, error) {
	fd, err := connect(s.socket)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, []byte(relayok+"\n")); err != nil {
		return 0, err
	}
	var reply [256]byte
	n, err := syscall.Read(fd, reply[:])
	now := time.Now()
	if err != nil {
		return 0, err
	}
	var nanoseconds int64
	if _, err := fmt.Sscanf(string(reply[:n]), "ok 1 %d", &nanoseconds); err != nil {
		return 0, fmt.Errorf("answer %q: %w", reply[:n], err)
	}
	return now.Sub(time.Unix(0, nanoseconds)), nil
}
