// Bench compares the suite with its peers on this machine: the same load on
// each, in turns, and the ratio of the medians. Rates of a single run are worth
// little, as the load, the peers and everything else share the machine.
//
//	bench [-rounds N] [-quick] [dispatch] [smtp]
//
// dispatch is requests through multiplexor and through Debian's
// mimedefang-multiplexor; smtp is messages through smtp-proxy and through
// HAProxy in TCP mode. A peer that is not installed is left out.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// bench is what all measurements share.
type bench struct {
	bin    string // the programs as built
	dir    string // scratch, removed at the end
	rounds int
	quick  bool
	procs  processes
}

func main() {
	b := bench{}
	flag.StringVar(&b.bin, "bin", "bin", "`directory` of the built programs")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each row is measured")
	flag.BoolVar(&b.quick, "quick", false, "few points and short runs")
	flag.Parse()
	runtime.LockOSThread() // the kernel ends our children with the thread that started them
	if err := b.run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func (b *bench) run(parts []string) (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "postern-bench-"); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		b.procs.stop()
		os.RemoveAll(b.dir)
		os.Exit(130)
	}()
	defer os.RemoveAll(b.dir)
	defer b.procs.stop()
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	all := map[string]func() error{"dispatch": b.dispatch, "smtp": b.smtp}
	if len(parts) == 0 {
		parts = []string{"dispatch", "smtp"}
	}
	for _, part := range parts {
		measure, ok := all[part]
		if !ok {
			return fmt.Errorf("no measurement %q", part)
		}
		if err := measure(); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// missing says that a peer is not there, and that its row is left out.
func missing(peer string) bool {
	if _, err := exec.LookPath(peer); err != nil {
		fmt.Printf("(no %s here: its row is left out)\n", peer)
		return true
	}
	return false
}

// median sorts values and gives the middle one.
func median(values []float64) float64 {
	slices.Sort(values)
	switch n := len(values); {
	case n == 0:
		return 0
	case n%2 == 1:
		return values[n/2]
	default:
		return (values[n/2-1] + values[n/2]) / 2
	}
}

// await calls ready until it is true.
func await(what string, ready func() bool) error {
	for deadline := time.Now().Add(10 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer", what)
		}
	}
	return nil
}
