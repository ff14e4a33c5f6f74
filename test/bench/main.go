// Bench compares the suite with its peers on this machine: the same load on
// each, in turns, and the ratio of the medians. Rates of a single run are worth
// little, as the load, the peers and everything else share the machine.
//
//	bench [-rounds N] [-quick] [-full] [PART...]
//
// The parts are
//
//	dispatch   requests through multiplexor and Debian's mimedefang-multiplexor
//	pool       what many workers, idle connections and long queues cost them, and a cold start
//	filter     messages through a filter, by smtp-proxy and by Postfix, milter and multiplexor of MIMEDefang
//	smtp       messages through smtp-proxy, HAProxy, nginx, Postfix and proxsmtpd
//	contended  one client's transactions beside busy processes, through smtp-proxy and HAProxy
//	idle       memory of idle SMTP sessions, and whether the proxy still answers
//	large      one message of 10 GiB
//	pop3       logins and messages through pop3-stamp, HAProxy, nginx, perdition and a copier in Go, and memory of idle POP3 sessions
//	storm      what many listeners cost the pool
//	latency    how soon listeners hear of a change
//	board      what a web page for a hundred daemons takes
//	store      a check of a stamp, and mail with limits over all gateways
//
// and all of them without an argument. At the end there is a table of what was
// aimed at and what was reached; the exit status says only whether everything
// could be measured. A peer that is not installed is left out.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// bench is what all measurements share.
type bench struct {
	bin      string // the programs as built
	dir      string // scratch, removed at the end
	rounds   int
	quick    bool
	full     bool
	worker   string // the C worker
	children processes
	goals    goals
}

// parts are the measurements in the order in which they are made.
var parts = []struct {
	name    string
	measure func(*bench) error
}{
	{"dispatch", (*bench).dispatch},
	{"pool", (*bench).pool},
	{"filter", (*bench).filter},
	{"smtp", (*bench).smtp},
	{"contended", (*bench).contended},
	{"idle", (*bench).idle},
	{"large", (*bench).large},
	{"pop3", (*bench).pop3},
	{"storm", (*bench).storm},
	{"latency", (*bench).latency},
	{"board", (*bench).board},
	{"store", (*bench).store},
}

func main() {
	runtime.LockOSThread() // the kernel ends our children with the thread that started them
	if os.Getenv(listenersEnv) != "" {
		os.Exit(status("listeners", listeners()))
	}
	if os.Getenv(copyEnv) != "" {
		os.Exit(status("copy", copyAll()))
	}
	b := bench{dir: os.Getenv(scratchEnv)}
	if b.dir == "" {
		os.Exit(guard(os.Args[1:]))
	}
	flag.StringVar(&b.bin, "bin", "bin", "`directory` of the built programs")
	flag.IntVar(&b.rounds, "rounds", 0, "how often each row is measured; 0 for 5, or 3 with -quick")
	flag.BoolVar(&b.quick, "quick", false, "few points and short runs")
	flag.BoolVar(&b.full, "full", false, "every size, number of sessions and kind of session in smtp")
	flag.Parse()
	settle := endWithGuard(b.dir)
	err := b.run(flag.Args())
	settle()
	os.Exit(status("bench", err))
}

// status prints an error and gives the exit status.
func status(who string, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: error: %v\n", who, err)
	return 1
}

func (b *bench) run(names []string) (err error) {
	if b.rounds == 0 {
		b.rounds = pick(b.quick, 3, 5)
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if b.worker, err = b.compile("worker"); err != nil {
		return err
	}
	defer b.children.stop()
	fmt.Println(machine())
	var failed []error
	for _, i := range chosen {
		b.goals.part = parts[i].name
		begin := time.Now()
		if err := parts[i].measure(b); err != nil {
			// The others are not lost, nor what has been measured.
			failed = append(failed, fmt.Errorf("%s: %w", parts[i].name, err))
			first, _, _ := strings.Cut(err.Error(), "\n")
			b.goals.unmeasured("the rest of this part", "", first)
		}
		b.children.stop()
		fmt.Printf("\n(%s took %.0f s)\n", parts[i].name, time.Since(begin).Seconds())
	}
	fmt.Printf("\n%s", b.goals.table())
	return errors.Join(failed...)
}

// machine describes what we run on, and whether it has anything else to do.
func machine() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%d processors, Linux %s, %s, %d descriptors a process; load before: %s",
		runtime.NumCPU(), strings.TrimSpace(string(release)), runtime.Version(), descriptorLimit(), strings.TrimSpace(string(load)))
}

// choose gives the indexes of parts, all if none is named.
func choose(names []string) (chosen []int, err error) {
	for _, name := range names {
		n := len(chosen)
		for i, part := range parts {
			if part.name == name {
				chosen = append(chosen, i)
			}
		}
		if n == len(chosen) {
			return nil, fmt.Errorf("no measurement %q", name)
		}
	}
	for i := range parts {
		if len(names) == 0 {
			chosen = append(chosen, i)
		}
	}
	return chosen, nil
}

// compile builds a helper in C from testdata where every account may execute it.
func (b *bench) compile(name string, flags ...string) (string, error) {
	path, err := os.MkdirTemp(b.dir, name)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(path, name)
	args := append([]string{"-O2", "-Wall", "-pthread", "-o", path}, flags...)
	out, err := exec.Command("cc", append(args, filepath.Join("test", "bench", "testdata", name+".c"))...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compile %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// missing says that a program or file of a peer is not there, and that its row
// is left out.
func missing(peer string) bool {
	_, err := exec.LookPath(peer)
	if filepath.IsAbs(peer) {
		_, err = os.Stat(peer)
	}
	if err != nil {
		fmt.Printf("(no %s here: its row is left out)\n", peer)
		return true
	}
	return false
}

// pick gives the first value if cond, else the second.
func pick[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}
