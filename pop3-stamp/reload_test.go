package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"postern/internal/config"
	"postern/internal/testenv"
)

// TestReload: settings of sessions are in force for those that begin after SIGHUP; what needs a restart is named; and with
// an error everything stays.
func TestReload(t *testing.T) {
	dir := testenv.ShortDir(t)
	file, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "p")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	connect := func() (net.Conn, string) {
		t.Helper()
		c := testenv.Dial(t, "unix", socket)
		return c, newPeer(t, c).line()
	}
	greeting := func() string {
		t.Helper()
		c, line := connect()
		c.Close()
		return line
	}
	write("hostname one.test\nmax-sessions 10\n")
	w := startWhole(t, "--config", file, "--pop3", socket, "--upstream", backendAt(t, mailbox("")))
	if got := greeting(); !strings.Contains(got, "one.test") {
		t.Errorf("greeting %q", got)
	}
	write("hostname two.test\nmax-sessions 1\nclientip-maxage 1h\n")
	w.send(syscall.SIGHUP)
	testenv.Eventually(t, "the new name", func() bool { return strings.Contains(greeting(), "two.test") })
	testenv.Eventually(t, "what needs a restart is named, alone", func() bool {
		return strings.Contains(w.log.String(), "not_in_force=clientip-maxage")
	})
	var first net.Conn
	testenv.Eventually(t, "the only place, which those before have left", func() bool {
		c, line := connect()
		if strings.HasPrefix(line, "+OK") {
			first = c
			return true
		}
		c.Close()
		return false
	})
	if got := greeting(); !strings.HasPrefix(got, "-ERR") {
		t.Errorf("beside another session: %q, want the new limit", got)
	}
	write("hostname three.test\nmax-sessions -1\n")
	w.send(syscall.SIGHUP)
	testenv.Eventually(t, "the error is told", func() bool { return strings.Contains(w.log.String(), "settings are not reloaded") })
	_ = first.Close()
	testenv.Eventually(t, "a place", func() bool { return strings.HasPrefix(greeting(), "+OK") })
	if got := greeting(); !strings.Contains(got, "two.test") && strings.HasPrefix(got, "+OK") {
		t.Errorf("greeting %q, want the settings of before", got)
	}
}

// TestFixedSettings: the names of settings that need a restart are those of settings.
func TestFixedSettings(t *testing.T) {
	t.Parallel()
	p := config.Parser{Program: programName, DefaultFile: "/nonexistent"}
	result, err := p.Parse(&settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range result.Settings {
		all = append(all, s.Name)
	}
	for _, name := range fixed {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no setting", name)
		}
	}
	if len(fixed) >= len(all) {
		t.Error("nothing is in force without a restart")
	}
}
