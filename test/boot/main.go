// Boot installs the package in a Debian that runs its systemd, and follows the manual pages as an
// administrator would: set-ups, reboots, mistakes, restarts under load, upgrade and removal. Each check has a machine of its own, in
// namespaces without a network; it needs root, and debootstrap for the first time.
//
//	boot [-tree DIR] [-keep] [CHECK...]
//
// The exit status is 1 if a check failed.
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
	"strings"
	"syscall"
	"time"
)

// check is something that an installation must do.
type check struct {
	name string
	run  func(*machine) error
}

func main() {
	runtime.LockOSThread() // the kernel ends machines with the thread that started them
	tree := flag.String("tree", filepath.Join(os.TempDir(), "postern-boot-tree"), "`directory` of the Debian tree, made if it is missing")
	verbose := flag.Bool("journal", false, "show the machine's journal when a check fails")
	flag.Parse()
	os.Exit(boot(*tree, *verbose, flag.Args()))
}

// boot runs the checks and gives the exit status.
func boot(tree string, verbose bool, names []string) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "boot: error: needs root: it makes namespaces and mounts")
		return 1
	}
	make := exec.Command("sh", "test/boot/tree.sh", tree)
	make.Stdout, make.Stderr = os.Stdout, os.Stderr
	if err := make.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "boot: error: make the tree:", err)
		return 1
	}
	passed, failed := 0, 0
	for _, c := range checks {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		began := time.Now()
		if err := c.try(tree, verbose); err != nil {
			failed++
			fmt.Printf("FAIL %s (%.1fs)\n\t%s\n", c.name, time.Since(began).Seconds(), strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n\t"))
			continue
		}
		passed++
		fmt.Printf("ok   %s (%.1fs)\n", c.name, time.Since(began).Seconds())
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return 1
	}
	return 0
}

// atInterrupt has f run and the program end at SIGINT and SIGTERM, until stop is called.
func atInterrupt(f func()) (stop func()) {
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-came; ok {
			f()
			os.Exit(1)
		}
		close(done)
	}()
	return func() {
		signal.Stop(came)
		close(came)
		<-done // which does not come while the program is being ended
	}
}

// try runs a check on a new machine.
func (c check) try(tree string, verbose bool) error {
	scratch, err := os.MkdirTemp("", "postern-boot")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	m, err := newMachine(tree, filepath.Join(scratch, "root"))
	if err != nil {
		return err
	}
	defer m.halt()
	defer atInterrupt(func() {
		m.kill()
		_ = os.RemoveAll(scratch)
	})()
	if err := bring(m); err != nil {
		return err
	}
	if err := m.boot(); err != nil {
		return err
	}
	if err = m.unpacked(); err == nil {
		err = c.run(m)
	}
	if err != nil && verbose {
		said, _ := m.run("journalctl -b --no-pager -o short-monotonic -u smtp-proxy* -u multiplexor* -u pop3-stamp* -u postfix* -u exim4* -u opensmtpd* -u dovecot* -u haproxy* | tail -60")
		err = fmt.Errorf("%w\n%s", err, said)
	}
	return err
}
