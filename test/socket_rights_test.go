package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// TestSocketRights has every daemon make its sockets, in a directory of root's, for a group, and wants its members let in and
// nobody else, whatever account serves.
func TestSocketRights(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	const group, others = 60001, 60002
	programs := map[string]string{
		"smtp-proxy":  "--user=nobody --maxloadavg=0 --upstream=smtp://127.0.0.1:1 --smtp=inet:PORT",
		"pop3-stamp":  "--user=nobody --upstream=pop3://127.0.0.1:1 --pop3=inet:PORT",
		"multiplexor": "--user=nobody --foreground --worker=/bin/cat --spool=SPOOL --requests=DIR/requests --status=DIR/status --map=DIR/map",
	}
	for program, args := range programs {
		t.Run(program, func(t *testing.T) {
			dir := testenv.ShortDir(t)
			spool := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "spool"))
			args += " --notify=DIR/notify --metrics=DIR/metrics"
			args = strings.NewReplacer("DIR", dir, "SPOOL", spool, "PORT", fmt.Sprint(testenv.FreePort(t))).Replace(args)
			words := append(strings.Fields(args), fmt.Sprintf("--socket-group=%d notify metrics", group), "--socket-mode=0660 notify", "--socket-mode=0600 metrics")
			if _, stderr, status := testenv.Run(t, testenv.Binary(t, program), append(words, "--check")...); status != 0 {
				t.Fatalf("--check: status %d, %s", status, stderr)
			}
			p := testenv.Start(t, exec.Command(testenv.Binary(t, program), words...))
			hears := func(gid uint32) bool {
				cat := exec.Command(testenv.Binary(t, "notify-cat"), "--once", "--timeout=3m", filepath.Join(dir, "notify"))
				cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 60003, Gid: gid}}
				return cat.Run() == nil
			}
			testenv.Eventually(t, "a member of the group to hear events", func() bool {
				if !p.Running() {
					t.Fatalf("ended: %s", p.Output())
				}
				return hears(group)
			})
			if hears(others) {
				t.Error("who is no member hears events")
			}
			want := map[string]string{"notify": "0660 65534.60001", "metrics": "0600 65534.60001", "requests": "0700 65534.65534", "map": "0700 65534.65534", "status": "0777 65534.65534"}
			for name, want := range want {
				info, err := os.Lstat(filepath.Join(dir, name))
				if err != nil {
					if program == "multiplexor" {
						t.Error(err)
					}
					continue
				}
				st := info.Sys().(*syscall.Stat_t)
				if got := fmt.Sprintf("%04o %d.%d", st.Mode&0o7777, st.Uid, st.Gid); got != want {
					t.Errorf("%s has %s, want %s", name, got, want)
				}
			}
		})
	}
	for _, setting := range []string{"--socket-mode=0680", "--socket-group=postern notfy"} {
		for program, args := range programs {
			if _, stderr, status := testenv.Run(t, testenv.Binary(t, program), append(strings.Fields(args), "--check", setting)...); status != 78 {
				t.Errorf("%s %s: status %d, want 78: %s", program, setting, status, stderr)
			}
		}
	}
}
