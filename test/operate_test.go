package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// holdingWorker is a worker that marks messages, and has those held whose subject says so.
const holdingWorker = `#!/bin/sh
while read -r verb qid dir; do
	case $verb in
	ping) echo PONG ;;
	scan)
		wish='HX-Seen yes'
		if grep -q '^Uhold' "$dir/COMMANDS"; then wish='Qlook%20at%20it'; fi
		printf '%s\nF\n' "$wish" >"$dir/RESULTS"
		echo ok
		;;
	*) echo 'ok 1' ;;
	esac
done
`

// TestOperatingFilters: what administrators do with a filter, with the real programs. A message is kept, shown to a shadow
// filter and replayed; one that is held is released.
func TestOperatingFilters(t *testing.T) {
	t.Parallel()
	g := startGateway(t) // its multiplexor is the shadow
	second := filepath.Join(g.dir, "run", "second")
	args := []string{"-D", "-s", second, "-z", g.spool, "-f", writeWorker(t, holdingWorker)}
	account, drops := testenv.DaemonAccount()
	if drops {
		args = append(args, "-U", account)
	}
	testenv.Start(t, exec.Command(testenv.Binary(t, "multiplexor"), args...))
	testenv.Eventually(t, "the second multiplexor", func() bool {
		_, _, status := testenv.Run(t, testenv.Binary(t, "mx-ctrl"), "-s", second, "free")
		return status == 0
	})
	held, kept := testenv.DaemonDir(t, filepath.Join(g.dir, "held")), testenv.DaemonDir(t, filepath.Join(g.dir, "kept"))
	settings := []string{"--multiplexor", second, "--spool", g.spool, "--hold", "maildir:" + held, "--keep-dir", kept}
	address, proxy := startProxyTo(t, "maildir:"+g.maildir,
		append(settings, "--keep-sample", "100%", "--shadow-multiplexor", g.socket("mx"))...)
	sendAs(t, address, "", "a@client.example", "b@server.example")
	testenv.Eventually(t, "the message, kept and delivered", func() bool {
		all, err := filepath.Glob(filepath.Join(kept, "*", "KEPT"))
		return err == nil && len(all) == 1 && len(g.delivered(t)) == 1
	})
	testenv.Eventually(t, "the shadow's verdict", func() bool {
		return strings.Contains(proxy.Output(), "shadow filter differs") && strings.Contains(proxy.Output(), "field x-seen: nothing, not H0 yes")
	})
	run := func(want int, words ...string) string {
		t.Helper()
		args := append([]string{"--config", os.DevNull, "--upstream", "maildir:" + g.maildir}, append(settings, words...)...)
		if drops {
			args = append(args, "--user", account)
		}
		stdout, stderr, status := testenv.Run(t, testenv.Binary(t, "smtp-proxy"), args...)
		if status != want {
			t.Errorf("%q: status %d, want %d\n%s%s", words, status, want, stdout, stderr)
		}
		return stdout
	}
	if out := run(0, "replay", kept); !strings.Contains(out, "same: 1, differ: 0") {
		t.Errorf("replay says\n%s", out)
	}
	if out := run(1, "--multiplexor", g.socket("mx"), "replay", kept); !strings.Contains(out, "field x-seen: nothing, not H0 yes") {
		t.Errorf("replay with another filter says\n%s", out)
	}
	run(1, "held", "list")
	c := dialSMTP(t, address)
	c.say("MAIL FROM:<a@client.example>\r\n", "250")
	c.say("RCPT TO:<b@server.example>\r\n", "250")
	c.say("DATA\r\n", "354")
	c.say("Subject: hold me\r\n\r\ntext\r\n.\r\n", "250")
	lines := strings.Split(run(0, "held", "list"), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "look at it") || len(g.delivered(t)) != 1 {
		t.Fatalf("held are %q, delivered %d", lines, len(g.delivered(t)))
	}
	id, _, _ := strings.Cut(lines[1], " ")
	run(0, "held", "release", id)
	run(1, "held", "list")
	if all := g.delivered(t); len(all) != 2 || !strings.Contains(all[0]+all[1], "Subject: hold me\n\ntext\n") {
		t.Errorf("delivered %q", all)
	}
}
