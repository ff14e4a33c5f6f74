// Demo shows the suite at work: it starts multiplexor with filter-basic
// workers and smtp-proxy in front of a Maildir, sends three messages over SMTP,
// shows the dialogs, the events and what was delivered, and says whether all
// came out as it should.
//
//	demo [-bin DIR] [-stay]
//
// With -stay it sends nothing: it leaves the programs running, says how to talk
// to them, and ends them at an interrupt. `make demo` and `make run` call it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	bin := flag.String("bin", "bin", "`directory` of the built programs")
	stay := flag.Bool("stay", false, "leave the programs running until an interrupt")
	flag.Parse()
	// The kernel ends our children when the thread that started them ends, so
	// they start from one that lives as long as we do.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *bin, *stay)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: error:", err)
		os.Exit(1)
	}
}

// run starts the suite, sends the messages or waits, and cleans up.
func run(ctx context.Context, bin string, stay bool) error {
	out := &output{w: os.Stdout}
	s, err := start(ctx, bin, out)
	if err != nil {
		return err
	}
	defer s.stop()
	if stay {
		s.explain()
		<-ctx.Done()
		return nil
	}
	err = s.sendAll(ctx)
	if err != nil {
		s.showLogs()
	}
	return err
}
