// Package boot installs the package in a Debian that runs its systemd, and follows the manual pages as an administrator
// would: set-ups, reboots, mistakes, restarts under load, upgrade and removal. Each check has a machine of its own, in
// namespaces without a network, and several go on at the same time. It needs root, and what prepare.sh makes.
package boot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// check is something that an installation must do.
type check struct {
	name string
	run  func(*machine) error
}

// site is what machines are made of, and where.
type site struct {
	root    string // of the sources, where what was built is as well
	layers  string // of the files, the lowest last: Debian, as debootstrap made it
	scratch string // the files of machines
	group   string // the cgroup above theirs
	made    atomic.Int32
}

// patience is how long whatever must come may take: far above what the slowest machine needs.
const patience = 5 * time.Minute

// newSite makes the places, whose names have the number of this process, and removes those of processes that were killed.
func newSite(root, tree string) (*site, error) {
	groups, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	sweep(groups)
	name := prefix + strconv.Itoa(os.Getpid())
	s := &site{root: root, layers: tree, scratch: filepath.Join(os.TempDir(), name), group: filepath.Join(groups, name)}
	return s, errors.Join(os.Mkdir(s.scratch, 0o700), os.Mkdir(s.group, 0o755))
}

// prefix begins the names of places.
const prefix = "postern-boot."

// sweep ends and removes what is left of processes that are no more.
func sweep(groups string) {
	for _, parent := range []string{groups, os.TempDir()} {
		found, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
		for _, name := range found {
			pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), prefix))
			switch {
			case err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH):
			case parent == groups:
				endGroup(name)
			default:
				_ = os.RemoveAll(name)
			}
		}
	}
}

// remove ends all machines and removes what is left of them.
func (s *site) remove() {
	endGroup(s.group)
	_ = os.RemoveAll(s.scratch)
}

// atInterrupt has f run and the process end at SIGINT and SIGTERM, until stop is called.
func atInterrupt(f func()) (stop func()) {
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(done)
		if _, ok := <-came; ok {
			f()
			os.Exit(1)
		}
	}()
	return func() {
		signal.Stop(came)
		close(came)
		<-done // which does not come while the process is being ended
	}
}

// errImpossible is for what this machine, or what is around it, cannot have.
var errImpossible = errors.New("no machine to boot")

// prepare has prepare.sh make the package and the tree.
func prepare(tree string) error {
	out, err := exec.Command("./prepare.sh", tree).CombinedOutput()
	said := strings.TrimSpace(string(out))
	if state := (*exec.ExitError)(nil); errors.As(err, &state) && state.ExitCode() == 77 {
		return fmt.Errorf("%w: %s", errImpossible, said[strings.LastIndexByte(said, '\n')+1:])
	}
	if err != nil {
		return fmt.Errorf("prepare.sh: %w\n%s", err, said)
	}
	return nil
}

// install makes the layer that all machines share: a running machine gets the package, and its changes stay.
func (s *site) install() error {
	m, err := s.newMachine()
	if err != nil {
		return err
	}
	defer m.halt()
	if err := m.bring(); err != nil {
		return err
	}
	err = m.boot()
	if errors.As(err, &final{}) { // plain Debian has ended at once; one that goes on, and comes to nothing, is a failure
		err = fmt.Errorf("%w: %w: %s", errImpossible, err, strings.TrimSpace(m.said.String()))
	}
	if err != nil {
		return err
	}
	if _, err := m.run("dpkg -i " + thePackage + " 2>&1"); err != nil {
		return err
	}
	m.stop()
	s.layers = m.dir + ".upper:" + s.layers
	return nil
}

// try runs a check on a new machine.
func (s *site) try(c check) error {
	runtime.LockOSThread() // the kernel ends a machine with the thread that started it; this one ends with its goroutine
	m, err := s.newMachine()
	if err != nil {
		return err
	}
	defer m.remove()
	if err := m.boot(); err != nil {
		return err
	}
	if err = c.run(m); err != nil {
		journal, _ := m.run("journalctl -b --no-pager -o short-monotonic -u smtp-proxy* -u multiplexor* -u pop3-stamp* -u postfix* -u exim4* -u opensmtpd* -u dovecot* -u haproxy* | tail -60")
		err = fmt.Errorf("%w\n%s", err, journal)
	}
	return err
}
