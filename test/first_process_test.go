package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// childStates gives the states of a process's children, a letter each.
func childStates(pid int) (states string) {
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range list {
		text, _ := os.ReadFile(file) // it may have ended
		_, rest, _ := bytes.Cut(text, []byte(") "))
		if f := bytes.Fields(rest); len(f) > 1 && string(f[1]) == fmt.Sprint(pid) {
			states += string(f[0])
		}
	}
	return states
}

// TestDaemonsAsFirstProcess has each daemon be the first process of a container: it takes note of the end of processes
// that are left to it, from outside or by a server program of its own, and ends as ever.
func TestDaemonsAsFirstProcess(t *testing.T) {
	t.Parallel()
	testenv.NeedNamespaces(t)
	enter := testenv.Path(t, "process in a container", "nsenter")
	dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// What it leaves behind outlives it, and keeps its standard error open.
	server := script("server", "(sleep 0.1) & (exec sleep 1000) &\necho 220 server.example\nread -r helo\necho 250 server.example\nread -r quit\n")
	worker := script("worker", "exec cat\n")
	account, _ := testenv.DaemonAccount()
	daemons := []struct {
		name string
		args []string
		left int // processes
		p    *testenv.Process
	}{
		// The server is asked what it can do.
		{name: "smtp-proxy", args: []string{"--smtp", "unix:" + dir + "/smtp-proxy", "--upstream", "exec:" + server, "--maxloadavg", "0"}, left: 2},
		{name: "pop3-stamp", args: []string{"--pop3", "unix:" + dir + "/pop3-stamp", "--upstream", "pop3://127.0.0.1:1"}, left: 1},
		{name: "multiplexor", args: []string{"--foreground", "--requests", "unix:" + dir + "/multiplexor", "--worker", worker, "--spool", dir, "--log", "stderr"}, left: 2},
	}
	for i := range daemons {
		d := &daemons[i]
		// As a container: with a /proc of its own.
		inside := []string{"-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$0" "$@"`, testenv.Binary(t, d.name), "--user", account}
		cmd := exec.Command("sh", append(inside, d.args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		d.p = testenv.Start(t, cmd)
		d.p.Until("an answer of "+d.name, func() bool {
			c, err := testenv.Connect("unix", filepath.Join(dir, d.name))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		if d.name == "smtp-proxy" {
			c := newSMTPClient(t, testenv.Dial(t, "unix", filepath.Join(dir, d.name)))
			c.expect("220")
			c.say("EHLO client.example\r\n", "250")
		}
		testenv.Run(t, enter, "-t", fmt.Sprint(d.p.Pid()), "-p", "sh", "-c", "(sleep 0.1) & (exec sleep 1000) &")
	}
	for _, d := range daemons {
		testenv.Eventually(t, "the end of what was left to "+d.name+" is noted", func() bool {
			return childStates(d.p.Pid()) == strings.Repeat("S", d.left)
		})
		d.p.Stop(syscall.SIGTERM)
		if status := d.p.Wait(); status != 0 {
			t.Errorf("%s: status %d", d.name, status)
		}
		if out := d.p.Output(); strings.Contains(out, "level=ERROR") || strings.Contains(out, "no child") {
			t.Errorf("complaints:\n%s", out)
		}
	}
}
