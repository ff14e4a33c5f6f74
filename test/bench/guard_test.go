package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// guardedEnv makes the test binary a guarded benchmark that ends as it says.
const guardedEnv = "POSTERN_BENCH_TEST"

func TestMain(m *testing.M) {
	how := os.Getenv(guardedEnv)
	if how == "" {
		testenv.Main(m)
	}
	runtime.LockOSThread()
	if dir := os.Getenv(scratchEnv); dir != "" {
		os.Exit(guardedBenchmark(dir, how))
	}
	os.Exit(guard(nil))
}

// guardedBenchmark starts a process that starts two more, one of them out of
// our process group and out of sight of the parent-death signal, and says
// which they are.
func guardedBenchmark(dir, how string) int {
	settle := endWithGuard(dir)
	defer settle()
	var children processes
	list := filepath.Join(dir, "pids")
	script := fmt.Sprintf("sleep 600 & a=$!; setsid sleep 600 & echo $$ $a $! >%s.new; mv %[1]s.new %[1]s; wait", list)
	if _, err := children.start(filepath.Join(dir, "log"), "sh", "-c", script); err != nil {
		return 1
	}
	text := []byte(nil)
	if err := await("the script", func() (ok bool) { text, _ = os.ReadFile(list); return text != nil }); err != nil {
		return 1
	}
	fmt.Printf("%d %s %s\n", os.Getpid(), dir, strings.TrimSpace(string(text)))
	switch how {
	case "wait": // ends when its child does, as a measurement that fails
		children[0].Wait()
	case "write":
		for { // as long as somebody reads
			fmt.Println("more")
		}
	}
	return 3
}

// TestNothingIsLeftBehind ends a benchmark in every way there is.
func TestNothingIsLeftBehind(t *testing.T) {
	testenv.Need(t, "processes that leave their group", "setsid")
	for _, c := range []struct {
		name   string
		how    string
		guard  syscall.Signal // sent to the guard
		bench  syscall.Signal // sent to the benchmark
		status int            // -1: killed, -2: either of two
	}{
		{name: "end", how: "end", status: 3},
		{name: "terminal interrupts both", guard: syscall.SIGINT, bench: syscall.SIGINT, status: -2},
		{name: "SIGTERM", guard: syscall.SIGTERM, status: 128 + 9},
		{name: "SIGHUP", guard: syscall.SIGHUP, status: 128 + 9},
		{name: "benchmark is killed", bench: syscall.SIGKILL, status: 128 + 9},
		{name: "guard is killed", guard: syscall.SIGKILL, status: -1},
		{name: "output is closed", how: "write", status: 128 + 13},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), guardedEnv+"="+pick(c.how == "", "wait", c.how), "TMPDIR="+testenv.ShortDir(t))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			fields := strings.Fields(line)
			if err != nil || len(fields) != 5 {
				cmd.Process.Kill()
				t.Fatalf("it says %q, %v", line, err)
			}
			var pids []int
			for _, field := range append([]string{fields[0]}, fields[2:]...) {
				pid, _ := strconv.Atoi(field)
				pids = append(pids, pid)
			}
			if c.how == "write" {
				out.Close()
			}
			if c.guard != 0 {
				cmd.Process.Signal(c.guard)
			}
			if c.bench != 0 {
				syscall.Kill(pids[0], c.bench)
			}
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status && c.status != -2 {
				t.Errorf("exit status %d, want %d", got, c.status)
			}
			for _, pid := range pids {
				testenv.Eventually(t, fmt.Sprintf("process %d to end", pid), func() bool { return gone(pid) })
			}
			testenv.Eventually(t, "the directory to go", func() bool {
				_, err := os.Stat(fields[1])
				return os.IsNotExist(err)
			})
		})
	}
}

// testBench is a benchmark with a directory of its own, that ends its children
// with the test.
func testBench(t *testing.T) *bench {
	t.Helper()
	root := testenv.Root(t)
	t.Chdir(root)
	b := &bench{dir: testenv.ShortDir(t)}
	t.Cleanup(b.children.stop)
	return b
}
