package scanner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Command runs a program with the message as its standard input. Its exit status is the verdict.
type Command struct{ args []string }

// Exit statuses of a command.
const (
	exitClean = 0
	exitVirus = 1
	exitSpam  = 2
	exitDefer = 75 // EX_TEMPFAIL
)

// NewCommand makes a scanner of a command line: words with blanks between, no shell.
func NewCommand(line string) (Command, error) {
	args := strings.Fields(line)
	if len(args) == 0 || !filepath.IsAbs(args[0]) {
		return Command{}, errors.New("a command begins with the path of its program")
	}
	return Command{args}, nil
}

// Name returns the name in results.
func (c Command) Name() string { return printable(filepath.Base(c.args[0]), 60) }

// Scan runs the command. It and its children are killed with the context.
func (c Command) Scan(ctx context.Context, m *Message) (Result, error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Stdin = bytes.NewReader(m.Content)
	cmd.Env = append(os.Environ(), environment(m)...)
	out := &firstBytes{left: 4 << 10}
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	text, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Result{}, ctx.Err()
	case err != nil && !errors.As(err, &exit) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, exec.ErrWaitDelay):
		return Result{}, err
	}
	verdicts := map[int]Verdict{exitClean: Clean, exitVirus: Virus, exitSpam: Spam, exitDefer: Defer}
	status := cmd.ProcessState.ExitCode()
	verdict, ok := verdicts[status]
	if !ok {
		return Result{}, fmt.Errorf("ended with %s: %q", cmd.ProcessState, printable(text, 200))
	}
	r := Result{Verdict: verdict}
	if verdict != Clean {
		r.Name = text
	}
	return r, nil
}

// maxVariable bounds RECIPIENTS. Linux starts no program that has a variable of more than 128 KiB.
const maxVariable = 100 << 10

// environment is what a command is told of a message.
func environment(m *Message) []string {
	recipients := m.firstRecipients(maxVariable, 1)
	for i, r := range recipients { // a line each
		recipients[i] = strings.ReplaceAll(r, "\n", "?")
	}
	list := []string{"QUEUE_ID=" + short(m.QueueID), "CLIENT_ADDRESS=" + short(m.ClientIP), "CLIENT_NAME=" + short(m.ClientName), "HELO=" + short(m.Helo),
		"SENDER=" + short(m.Sender), "LOGIN=" + short(m.User),
		"RECIPIENTS=" + strings.Join(recipients, "\n"), "RECIPIENTS_COUNT=" + strconv.Itoa(len(m.Recipients))}
	for i, e := range list { // a NUL would end the start
		list[i] = strings.ReplaceAll(e, "\x00", "?")
	}
	return list
}

// firstBytes keeps the first bytes that are written, and takes all.
type firstBytes struct {
	bytes.Buffer
	left int
}

func (f *firstBytes) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	f.Buffer.Write(p[:n])
	return len(p), nil
}
