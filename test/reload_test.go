package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestReloadTellsItsOutcome: the status of --reload, as ExecReload has it, is that of the reload, and settings that are
// wrong do not reach the daemon.
func TestReloadTellsItsOutcome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ program, listener, tls, upstream, fixed, change string }{
		{"smtp-proxy", "smtp", "smtps", "smtp://127.0.0.1:1", "hostname other.test", "max-sessions 7"},
		{"pop3-stamp", "pop3", "pop3s", "pop3://127.0.0.1:1", "clientip-maxage 1h", "max-sessions 7"},
	} {
		t.Run(tt.program, func(t *testing.T) {
			dir := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "d"))
			cert, key := testenv.Certificate(t, t.TempDir())
			for _, file := range []string{cert, key} {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			pair := fmt.Sprintf("\ntls-cert %s/%s\ntls-key %[1]s/%[3]s", dir, filepath.Base(cert), filepath.Base(key))
			account, _ := testenv.DaemonAccount()
			base := "user " + account + "\n" + tt.listener + " unix:" + dir + "/l\nnotify unix:" + dir + "/n\n"
			settings := filepath.Join(dir, "conf")
			write := func(text string) {
				if err := os.WriteFile(settings, []byte(base+text+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			program := testenv.Binary(t, tt.program)
			reload := func(pid int) (string, int) {
				_, stderr, status := testenv.Run(t, program, "--config", settings, "--reload", fmt.Sprint(pid))
				return stderr, status
			}
			implicit := tt.tls + " unix:" + dir + "/s\n"
			write(implicit + "upstream " + tt.upstream + pair)
			p := testenv.Start(t, exec.Command(program, "--config", settings))
			p.WaitOutput("msg=ready")
			reloads := 0
			for _, step := range []struct {
				name, text, want string
				status           int
				reaches          bool
			}{
				{"the same", implicit + "upstream " + tt.upstream + pair, "", 0, true},
				{"a typo", "no-such-setting yes", "no-such-setting", 78, false},
				{"a bad value", "max-sessions many", "max-sessions", 78, false},
				{"a missing key", implicit + "tls-cert " + dir + "/none", "none", 78, false},
				{"what needs a restart", implicit + "upstream " + tt.upstream + pair + "\n" + tt.fixed, "not in force before a restart: " + strings.Fields(tt.fixed)[0], 0, true},
				{"what the daemon refuses alone", "upstream " + tt.upstream, "settings are not reloaded: ", 1, true},
				{"what can change", implicit + "upstream " + tt.upstream + pair + "\n" + tt.change, "", 0, true},
			} {
				if tt.program == "pop3-stamp" && step.status == 1 {
					continue // it has no such setting
				}
				write(step.text)
				said, status := reload(p.Pid())
				if status != step.status || !strings.Contains(said, step.want) || step.want == "" && said != "" {
					t.Errorf("%s: status %d, want %d and %q:\n%s", step.name, status, step.status, step.want, said)
				}
				if step.reaches {
					reloads++
				}
			}
			reached := func() int { return strings.Count(p.Output(), "reloaded") }
			testenv.Eventually(t, "the last reload in the log", func() bool { return reached() >= reloads })
			p.Kill()
			if n := reached(); n != reloads {
				t.Errorf("%d reloads reached the daemon, want %d:\n%s", n, reloads, p.Output())
			}
			if said, status := reload(p.Pid()); status != 1 || !strings.Contains(said, dir+"/n") {
				t.Errorf("without a daemon: status %d\n%s", status, said)
			}
		})
	}
}
