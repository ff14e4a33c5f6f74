// Package faults has tests with the faults that testenv guards against; its own tests run them, one by one.
package faults

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.LeaveWithin = time.Second // nothing here ends by itself
	testenv.Main(m)
}

func TestSound(t *testing.T) {
	k := testenv.Go(t, "the task", func() error { return nil })
	k.Wait()
}

// A channel that nobody fills.
func TestEmptyChannel(t *testing.T) {
	testenv.Receive(t, "what never comes", make(chan int))
}

// A task that nobody waits for, and that never ends.
func TestEndlessTask(t *testing.T) {
	testenv.Go(t, "the endless task", func() error { select {} })
}

// A wait that is none of testenv's, on a connection without a time limit.
func TestForeignWait(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn := testenv.Dial(t, "tcp4", l.Addr().String())
	conn.SetDeadline(time.Time{})
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Log(err)
	}
}

// A wait that nothing ends.
func TestEndlessWait(t *testing.T) {
	testenv.ShortDir(t)
	testenv.Go(t, "a task that is well", func() error { return nil }).Wait()
	var held sync.Mutex
	held.Lock()
	held.Lock()
}

func TestFailingTask(t *testing.T) {
	testenv.Go(t, "the failing task", func() error { return errors.New("no luck") })
}

// A fatal call outside of the test's goroutine.
func TestFatalTask(t *testing.T) {
	testenv.Go(t, "the fatal task", func() error { t.FailNow(); return nil }).Wait()
}

// background starts a program that leaves the process group, the session and its parent, and clears its environment.
func background(t *testing.T) {
	p := testenv.Start(t, exec.Command("sh", "-c", `setsid env -i sh -c 'trap "" TERM HUP; echo PID $$; exec >/dev/null 2>&1; sleep 3600 & wait' & wait`))
	p.WaitOutput("PID")
	fmt.Print(p.Output())
	p.Kill()
}

func TestLeavesProgram(t *testing.T) { background(t) }

// TestDies leaves programs behind, one as a child without a group of its own, and waits for its end.
func TestDies(t *testing.T) {
	background(t)
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("PID %d\nREADY\n", cmd.Process.Pid)
	select {}
}
