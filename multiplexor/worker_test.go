package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
	"postern/multiplexor/process"
)

// TestMain plays a worker when the test binary is started as one: nothing else
// needs to be installed, and it can be as ugly as a test wants.
func TestMain(m *testing.M) {
	if os.Getenv(process.ForkSocketVariable) != "" {
		end(playForkServer(os.Args))
	}
	for _, a := range os.Args[1:] {
		if a == "-server" || a == "-serveru" {
			end(work(os.Args, os.Stdin, os.Stdout))
		}
	}
	testenv.Main(m)
}

// end ends a worker at once. os.Exit lets a process with the race detector sleep
// a second before it ends, which is no way for a worker to behave.
func end(status int) { syscall.Exit(status) }

// work answers lines until the end of file. A line "do A;B" has the steps carried
// out before the answer; anything else is echoed.
func work(args []string, in *os.File, out *os.File) int {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	lines.Split(func(b []byte, end bool) (int, []byte, error) { // keeps CR
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return 0, nil, nil
		}
		return i + 1, b[:i], nil
	})
	for lines.Scan() {
		line := lines.Text()
		if line == "ping" {
			fmt.Fprintln(out, "PONG")
			continue
		}
		_, steps, _ := strings.Cut(line, "do ")
		if i := strings.Index(line, "do "); i < 0 {
			fmt.Fprintf(out, "ok got <%s>\n", line)
			continue
		}
		answer := "ok did"
		for step := range strings.SplitSeq(steps, ";") {
			verb, arg, _ := strings.Cut(step, " ")
			n, _ := strconv.Atoi(arg)
			switch verb {
			case "sleep":
				testenv.Pause(time.Duration(n) * time.Millisecond)
			case "read": // until the other end of a FIFO is closed
				_, _ = os.ReadFile(arg)
			case "exit":
				end(n)
			case "die":
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				syscall.Pause()
			case "raw":
				fmt.Fprint(out, strings.NewReplacer(`\n`, "\n", "+", " ").Replace(arg))
			case "mute":
				answer = ""
			case "status":
				os.NewFile(3, "status").WriteString(arg + "\n")
			case "stderr":
				fmt.Fprintln(os.Stderr, arg)
			case "flood":
				const many = 600 // lines at a time: fewer calls, and less than a pipe holds
				flood := bytes.Repeat([]byte(strings.Repeat("x", 100)+"\n"), many)
				for range n / many {
					os.Stderr.Write(flood)
				}
			case "long":
				answer = strings.Repeat("l", n)
			case "close":
				out.Close()
			case "stubborn":
				signal.Ignore(syscall.SIGTERM)
				go func() {
					for {
						testenv.Pause(time.Hour)
					}
				}()
				lines = bufio.NewScanner(neverEnds{in})
			case "about":
				answer = about(args)
			case "memory":
				hoard := make([]byte, n<<20)
				for i := 0; i < len(hoard); i += 4096 {
					hoard[i] = 1
				}
			case "spin":
				for {
					n++
				}
			case "brood": // a child that keeps the pipes, and says which it is
				child := exec.Command("sleep", "3600")
				child.Stdin, child.Stdout, child.Stderr = in, out, os.Stderr
				if err := child.Start(); err != nil {
					answer = err.Error()
					break
				}
				answer = strconv.Itoa(child.Process.Pid)
			case "later": // when the other end of a FIFO is closed
				go func() {
					_, _ = os.ReadFile(arg)
					fmt.Fprintln(out, "unasked")
				}()
			}
		}
		if answer != "" {
			fmt.Fprintln(out, answer)
		}
	}
	return 0
}

// neverEnds is a file whose end is not noticed.
type neverEnds struct{ *os.File }

func (f neverEnds) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	if n == 0 && err != nil {
		syscall.Pause()
	}
	return n, nil
}

// about tells what the process was given by whoever started it.
func about(args []string) string {
	var fds []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		// The Go runtime opens an epoll descriptor and an eventfd, ReadDir its directory.
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if !strings.HasPrefix(target, "anon_inode:") && target != "" && !strings.HasPrefix(target, "/proc/") && !strings.HasPrefix(target, "/sys/") {
			kind, _, _ := strings.Cut(target, ":")
			fds = append(fds, e.Name()+"="+kind)
		}
	}
	umask := syscall.Umask(0)
	syscall.Umask(umask)
	limits, _ := os.ReadFile("/proc/self/limits")
	var space string
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max address space") {
			space = strings.Fields(line)[3]
		}
	}
	dir, _ := os.Getwd()
	group := "shared"
	if pgid, _ := syscall.Getpgid(0); pgid == os.Getpid() {
		group = "own"
	}
	var secret []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		secret = append(secret, name)
	}
	return fmt.Sprintf("argv=%s fds=%s umask=%03o space=%s dir=%s group=%s env=%s", strings.Join(args, ","), strings.Join(fds, ","), umask, space, dir, group, strings.Join(secret, ","))
}
