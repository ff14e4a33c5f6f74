// Notify measures what listeners cost a worker pool and how soon they hear of
// a change, with the real multiplexor.
//
//	notify [-rounds N] [-requests N] [-listeners N] [-mix MIX] [-only storm|latency]
//
// storm sends requests through the pool, in turns with no listener and with
// many of which a tenth never read, and compares the rates. The listeners live
// in a process of their own and check what they are sent: numbers without gaps,
// each Y and Z in order. latency lets single requests change the state of an
// otherwise idle pool and measures the time from the change to a listener's
// read.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type bench struct {
	bin, dir  string
	rounds    int
	requests  int
	listeners int
	mix       string
	worker    string
	children  []*exec.Cmd
}

func main() {
	b := bench{}
	only := ""
	flag.StringVar(&b.bin, "bin", "bin", "`directory` of the built programs")
	flag.IntVar(&b.rounds, "rounds", 5, "how often the storm is measured")
	flag.IntVar(&b.requests, "requests", 50000, "requests in a storm")
	flag.IntVar(&b.listeners, "listeners", 1000, "listeners in a storm, of which a tenth never read")
	flag.StringVar(&b.mix, "mix", "?YZ ?*+ ?* ?YZF+ ?YZ", "interest lines, taken in turns")
	flag.StringVar(&only, "only", "", "storm or latency")
	flag.Parse()
	if socket := os.Getenv("BENCH_LISTEN"); socket != "" {
		if err := listen(socket, b.listeners, strings.Fields(b.mix)); err != nil {
			fmt.Fprintln(os.Stderr, "listeners:", err)
			os.Exit(1)
		}
		return
	}
	runtime.LockOSThread() // the kernel ends our children with the thread that started them
	if err := b.run(only); err != nil {
		fmt.Fprintln(os.Stderr, "notify: error:", err)
		os.Exit(1)
	}
}

func (b *bench) run(only string) (err error) {
	if b.dir, err = os.MkdirTemp("", "postern-notify-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer b.stop()
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	b.worker = filepath.Join(b.dir, "worker")
	out, err := exec.Command("cc", "-O2", "-Wall", "-o", b.worker, filepath.Join("test", "bench", "testdata", "worker.c")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile worker: %w\n%s", err, out)
	}
	if only != "latency" {
		if err := b.storm(); err != nil {
			return fmt.Errorf("storm: %w", err)
		}
	}
	if only != "storm" {
		for _, n := range []int{1, 10, 100} {
			if err := b.latency(n); err != nil {
				return fmt.Errorf("latency: %w", err)
			}
		}
	}
	return nil
}

// workers is the size of the pool; as many clients keep it busy.
const workers = 8

// pool starts a multiplexor with all its workers running.
func (b *bench) pool(name string) (cmd *exec.Cmd, dir string, err error) {
	dir = filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, "", err
	}
	n := strconv.Itoa(workers)
	args := []string{"-D", "-m", n, "-x", n, "-w", "1", "-z", dir, "-f", b.worker, "-r", "100000000", "-i", "100000",
		"-s", filepath.Join(dir, "mx"), "-O", filepath.Join(dir, "notify")}
	if os.Geteuid() == 0 {
		args = append(args, "-U", "nobody")
		if err := giveTo("nobody", dir); err != nil {
			return nil, "", err
		}
	}
	cmd = exec.Command(filepath.Join(b.bin, "multiplexor"), args...)
	if err := b.start(cmd); err != nil {
		return nil, "", err
	}
	return cmd, dir, await("the multiplexor", func() bool {
		_, err := os.Stat(filepath.Join(dir, "notify"))
		_, err2 := os.Stat(filepath.Join(dir, "mx"))
		return err == nil && err2 == nil
	})
}

func giveTo(account, dir string) error {
	u, err := user.Lookup(account)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return os.Chown(dir, uid, gid)
}

// start runs a child that is ended with us.
func (b *bench) start(cmd *exec.Cmd) error {
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.children = append(b.children, cmd)
	return nil
}

// stop ends all children that still run.
func (b *bench) stop() {
	for _, cmd := range slices.Backward(b.children) {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	b.children = nil
}

func await(what string, ready func() bool) error {
	for end := time.Now().Add(20 * time.Second); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s is not there after 20 s", what)
		}
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
