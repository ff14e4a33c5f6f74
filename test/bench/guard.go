package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// scratchEnv names the directory that a guarded benchmark writes to.
const scratchEnv = "POSTERN_BENCH_DIR"

// prSetChildSubreaper is PR_SET_CHILD_SUBREAPER of prctl(2): orphans below us
// become our children.
const prSetChildSubreaper = 36

// guard runs the benchmark in a child. Whatever ends it, be it a signal, a
// standard output that is closed, or a defect, all that it has started is ended
// then and its directory removed. A parent-death signal alone does not do that:
// the kernel forgets it when a daemon drops root.
func guard(args []string) (status int) {
	syscall.Umask(0o022) // the daemons are other accounts
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return fail("become the parent of orphans", errno)
	}
	base := os.TempDir()
	if len(base) > 40 { // the path of a socket has 107 bytes at most
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "postern-bench-")
	if err != nil {
		return fail("make a directory", err)
	}
	defer removeScratch(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return fail("make a directory", err)
	}
	interrupted := make(chan os.Signal, 4)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), scratchEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return fail("start", err)
	}
	go func() {
		for range interrupted {
			cmd.Process.Kill()
		}
	}()
	cmd.Wait()
	for end := time.Now().Add(10 * time.Second); endBelow(os.Getpid()) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	if ended := cmd.ProcessState.Sys().(syscall.WaitStatus); ended.Signaled() {
		return 128 + int(ended.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// inMemory names the directory on a tmpfs that goes with a scratch directory, for what hosts have on one.
func inMemory(dir string) string { return filepath.Join("/dev/shm", filepath.Base(dir)) }

func removeScratch(dir string) {
	os.RemoveAll(dir)
	os.RemoveAll(inMemory(dir))
}

func fail(what string, err error) int {
	fmt.Fprintf(os.Stderr, "bench: error: %s: %v\n", what, err)
	return 1
}

// endWithGuard does the guard's work when the guard itself was killed, which
// the kernel tells us with SIGTERM. Before the program ends by itself it calls
// settle, which does not return if that work has begun: what we measure fails
// then, and would end us too early.
func endWithGuard(dir string) (settle func()) {
	var ending sync.Mutex
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		ending.Lock()
		for end := time.Now().Add(5 * time.Second); endBelow(os.Getpid()) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		removeScratch(dir)
		os.Exit(128 + int(syscall.SIGTERM))
	}()
	return ending.Lock
}

// endBelow kills everything below a process, and says whether there was
// anything alive.
func endBelow(pid int) (alive bool) {
	table := processTable()
	for _, p := range table.tree(pid) {
		if p != pid && table[p].state != 'Z' {
			syscall.Kill(p, syscall.SIGKILL)
			alive = true
		}
	}
	return alive
}
