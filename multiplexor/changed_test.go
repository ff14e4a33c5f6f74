package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestChangedSettingsAreNamed: a reread names the settings that have changed since the start, as none of them is in force
// before a restart, and what would keep the program from starting.
func TestChangedSettingsAreNamed(t *testing.T) {
	t.Parallel()
	r := prepare(t)
	write := func(text string) {
		if err := os.WriteFile(r.path("conf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("max-requests 400\n")
	r.start(exec.Command(testenv.Binary(t, "multiplexor"), r.args("-D", "--config", r.path("conf"))...))
	r.want("reread", "Forced reread of filter rules\n")
	if said := r.proc.Output(); strings.Contains(said, "restart") {
		t.Errorf("nothing has changed:\n%s", said)
	}
	write("max-requests 300\nmax-workers 3\n")
	r.want("reread", "Forced reread of filter rules\n")
	r.logged("have changed and are not in force before a restart: max-workers, max-requests")
	write("no-such-setting yes\n")
	r.proc.Stop(syscall.SIGINT)
	r.logged("no-such-setting")
	r.end()
}
