package main

import (
	"strings"
	"testing"

	"postern/internal/daemon"
	"postern/internal/evloop"
	"postern/internal/testenv"
)

// TestServiceManagerDoesNotHoldUpTheLoop: what it is told of a reread's end goes out when the loop
// has gone on, the outcome first, and is not lost when there is much to log.
func TestServiceManagerDoesNotHoldUpTheLoop(t *testing.T) {
	e, release := blocked()
	defer e.Close()
	defer release()
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	told := make(chan string, 10)
	env := &daemon.Env{Status: func(string) { told <- "status" }, Ready: func() { told <- "ready" }}
	d := &multiplexor{env: env, pool: newTestServer(t, loop, nil).pool, work: e, settings: &settings{}}
	d.pool.OnReread = d.rereadEnded
	d.reload()
	if !strings.Contains(string(d.pool.AppendHealth(nil)), "Rereads 1\n") {
		t.Error("no reread")
	}
	if got := testenv.Receive(t, "the outcome", told); got != "status" {
		t.Errorf("%q was said by the loop itself", got)
	}
	testenv.NotYet(t, "the end, which may take its time to say", told)
	release()
	if got := testenv.Receive(t, "the end", told); got != "ready" {
		t.Errorf("%q was said at the end", got)
	}
}

// TestWatchdogAsksTheLoop: there is no answer while it does not turn, and none is waited for when it has ended.
func TestWatchdogAsksTheLoop(t *testing.T) {
	loop, err := evloop.New()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	d, ended := &multiplexor{loop: loop}, make(chan struct{})
	alive := make(chan bool, 1)
	ask := func() { d.alive(ended); alive <- true }
	go ask()
	testenv.NotYet(t, "an answer of a loop that does not turn", alive)
	run := testenv.Go(t, "the loop", loop.Run)
	testenv.Receive(t, "an answer of the loop", alive)
	loop.Post(loop.Stop)
	run.Wait()
	go ask()
	testenv.NotYet(t, "an answer of a loop that has ended", alive)
	close(ended)
	testenv.Receive(t, "the end of the question", alive)
}
