package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/testenv"
)

// controls gives Debian's md-mx-ctrl and ours under that name.
func controls(t *testing.T) (theirs, ours string) {
	t.Helper()
	theirs = testenv.Path(t, "mx-ctrl beside md-mx-ctrl", "md-mx-ctrl")
	ours = filepath.Join(testenv.ShortDir(t), "md-mx-ctrl")
	if err := os.Symlink(testenv.Binary(t, "mx-ctrl"), ours); err != nil {
		t.Fatal(err)
	}
	return theirs, ours
}

// said is what a run of a control tool left behind.
type said struct {
	Stdout, Stderr string
	Status         int
}

// control runs a control tool. There are so many runs that their output is not
// kept for when the test fails.
func control(t *testing.T, program, socket, stdin string, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"-s", socket}, args...)...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return said{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// scripted is a socket on which each request gets the reply that answer makes of
// it and of how many there were before.
type scripted struct {
	socket string
	mu     sync.Mutex
	got    []string
}

func script(t *testing.T, answer func(i int, request string) string) *scripted {
	t.Helper()
	s := &scripted{socket: filepath.Join(testenv.ShortDir(t), "s")}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			testenv.Patient(conn)
			request, _ := bufio.NewReader(conn).ReadString('\n')
			s.mu.Lock()
			i := len(s.got)
			s.got = append(s.got, request)
			s.mu.Unlock()
			io.WriteString(conn, answer(i, request))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		testenv.Receive(t, "the end of the script", done)
	})
	return s
}

// requests gives what was asked since the last call.
func (s *scripted) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// controlLines are commands of every kind, as lines for -i.
var controlLines = []string{"status", "barstatus", "rawstatus", "rawload", "rawload-relayok", "rawload-senderok", "rawload-recipok", "rawhload", "rawhload-relayok", "rawhload-senderok", "rawhload-recipok", "load1 60", "load1 60 70", "load1 ", "load1", "rawload1 60", "rawload1",
	"reread", "msgs", "free", "version", "workers", "workerinfo 0", "load-x", "rawload-x", "loadx", "hload1", " status", "status ", "status\r", "", "\r", "foo a%20b \"c\"", "STATUS", "foo_no_such_command"}

// tableLines are the commands for which the original shows, in place of a number
// that is missing, whatever is in its memory.
var tableLines = []string{"load", "load-relayok", "load-senderok", "load-recipok", "hload", "hload-relayok", "hload-senderok", "hload-recipok"}

const (
	aStatus = "BIKS 7 8 9 1 100\n"
	aLoad   = "1 1 1 1 3.000000 3.000000 3.000000 3.000000 142.000000 142.000000 142.000000 142.000000 3 3 3 3 0 0 0 0 2 1 1 0 1 3 3 0 0\n"
	aLoad1  = "1 3.000000 142.000000 0 0.000000 0.000000 1 3.000000 0.000000 1 3.000000 0.000000 2 1 1 0 1 3 3 0 0 60 1 1 0 0\n"
	aHload  = "2 2 2 2 1.000000 1.000000 1.000000 1.000000 0.500000 0.000000 0.000000 0.000000 0 7 0 0\n"
)

// differs fails the test unless the original's part, want, is the same as ours.
func differs(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%.3000s", what, diff)
	}
}

// TestMxCtrlShowsAnyReplyAsTheOriginal gives both tools the same replies, good and
// bad, to commands of every kind.
func TestMxCtrlShowsAnyReplyAsTheOriginal(t *testing.T) {
	t.Parallel()
	theirs, ours := controls(t)
	replies := []string{"", "\n", "\r\n", "x", "x\n", "a\nb\n", "error: No free workers\n", "ERR No response from worker\n", "ERROR x", "ok 1 a%20b%0Ac%zz%4\n", "%0A", "x%0a", "a%00b\n", "a\x00b\n",
		"\xff\x1b[31m%1B\n", strings.Repeat("abc%41 ", 500) + "\n",
		aStatus, aLoad, aLoad1, aHload, "B", "I\n", "BX\n", "K 5", "B foo\n", "BB 1 2 3", "BB 1 2 3 2 1 junk\nmore\n", " B 1 1 1 1 1\n", "B -1 2 -5 9 1\n", "I 1 2 0 3 4\n", "S  1\t2 3 4 5\n",
		"1 2 3\n", "1 2 3 4", "1,2,3", "2.7 1e2 -4 0x10 1\n", "+1 -2 3 4 +1.5 -1.5 1e1 1E+2 .5 5. 1 1\n", "1 1 1 1 x 1 1 1\n", "0x10 1 1 1 1\n", " " + aLoad, " \t\n" + aLoad1,
		strings.TrimSuffix(aLoad, "\n"), strings.TrimSuffix(aLoad, " 0\n"), aLoad[:len(aLoad)-1] + " 99\n",
		strings.TrimSuffix(aLoad1, "\n"), strings.TrimSuffix(aLoad1, " 0\n"), aLoad1[:len(aLoad1)-1] + " 99\n", strings.Replace(aLoad1, "1 3.0", "1.5 3.0", 1), strings.Replace(aLoad1, "142", "x", 1)}
	for _, reply := range replies {
		fake := script(t, func(int, string) string { return reply })
		lines := controlLines
		if strings.HasPrefix(reply, aLoad[:20]) || reply == aHload {
			lines = slices.Concat(lines, tableLines)
		}
		stdin := strings.Join(lines, "\n") + "\n"
		want, asked := control(t, theirs, fake.socket, stdin, "-i"), fake.requests()
		got := control(t, ours, fake.socket, stdin, "-i")
		differs(t, fmt.Sprintf("output for reply %.200q", reply), want, got)
		differs(t, "what was asked", asked, fake.requests())
	}
}

// TestMxCtrlTakesTheOriginalsCommandLine compares output, standard error, status
// and what was sent, for command lines of every kind.
func TestMxCtrlTakesTheOriginalsCommandLine(t *testing.T) {
	t.Parallel()
	theirs, ours := controls(t)
	lines := [][]string{{}, {"status"}, {"-h"}, {"status", "-h"}, {"-z"}, {"--help"}, {"--timeout", "60", "x"}, {"-i"}, {"status", "-i"}, {"-is"}, {"-i", "status"},
		{"foo", "-x"}, {"--", "-x"}, {"-"}, {"-", "-"}, {"foo", "--", "-x", "--"}, {""}, {"", ""}, {"load1 60"}, {"load1", "60"}, {"rawload1", "60", "x y"}, {"load1"}, {"load1", ""},
		{"foo", "a b", "%", `\`, `"`, "'", "\xff", "\t", "x\ny", "é"}, {"status", "x"}, {"msgs"}, {"top"}, {strings.Repeat("x", 20000)}, {"foo", "-s", "/nonexistent"}, {"-s/nonexistent", "status"}, {"-s", "/", "status"}}
	for name, reply := range map[string]string{"good": "ok got %41\n", "status": aStatus, "load": aLoad1, "error": "error: x\n", "empty": "", "without LF": "x"} {
		fake := script(t, func(int, string) string { return reply })
		for _, args := range lines {
			t.Run(fmt.Sprintf("%s %.50q", name, args), func(t *testing.T) {
				want, asked := control(t, theirs, fake.socket, "free\n", args...), fake.requests()
				got := control(t, ours, fake.socket, "free\n", args...)
				// getopt(3) begins its messages with the name as it was called.
				got.Stderr = strings.ReplaceAll(got.Stderr, ours, theirs)
				want.Stderr = strings.ReplaceAll(want.Stderr, theirs+": ", "md-mx-ctrl: ")
				differs(t, "output", want, got)
				differs(t, "what was asked", asked, fake.requests())
			})
		}
	}
}

// TestMxCtrlRoundsAsTheOriginal gives both tools many replies with numbers of all
// sizes, and every bar of a pool or queue that is not too large.
func TestMxCtrlRoundsAsTheOriginal(t *testing.T) {
	t.Parallel()
	theirs, ours := controls(t)
	r := rand.New(rand.NewPCG(1, 2))
	var lines, replies []string
	add := func(line, reply string) {
		lines, replies = append(lines, line), append(replies, reply)
	}
	number := func() int { return r.IntN(1 << r.IntN(21)) }
	float := func() string { return fmt.Sprintf("%.6f", float64(number())+r.Float64()) }
	for size := range 80 {
		for used := range size + 1 {
			add("barstatus", fmt.Sprintf("B%s%s %d 2 %d %d 5\n", strings.Repeat("B", used), strings.Repeat("I", size-used), number(), size, used))
		}
	}
	for range 1000 {
		var load []string
		for i := range 29 {
			if i >= 4 && i < 12 {
				load = append(load, float())
			} else {
				load = append(load, fmt.Sprint(number()))
			}
		}
		add("load", strings.Join(load, " ")+"\n")
		add("hload-recipok", strings.Join(load[:16], " ")+"\n")

		var load1 []string
		for i := range 26 {
			switch {
			case i < 12 && i%3 != 0:
				load1 = append(load1, float())
			case i == 21:
				load1 = append(load1, fmt.Sprint(10+r.IntN(591)))
			default:
				load1 = append(load1, fmt.Sprint(number()))
			}
		}
		add("load1 60", strings.Join(load1, " ")+"\n")
	}
	stdin := strings.Join(lines, "\n") + "\n"
	outputs := make([]said, 2)
	for i, program := range []string{theirs, ours} {
		fake := script(t, func(i int, _ string) string { return replies[i] })
		outputs[i] = control(t, program, fake.socket, stdin, "-i")
	}
	differs(t, "output", outputs[0], outputs[1])
}
