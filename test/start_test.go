package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/config"
	"postern/internal/testenv"
)

// TestStartRefuses: what cannot serve does not start, and --check says so too; nobody tries it again.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	account, drops := testenv.DaemonAccount()
	tests := []struct{ name, program, args, want string }{
		{"no listener for mail", "smtp-proxy", "", "nothing to listen on: set smtp or submission or smtps"},
		{"none but for events", "smtp-proxy", fmt.Sprintf("--notify inet:%d", testenv.FreePort(t)), "nothing to listen on"},
		{"no listener for POP3", "pop3-stamp", "", "nothing to listen on: set pop3 or pop3s"},
		{"a port alone", "smtp-proxy", "--smtp 2526", "write inet:2526"},
		{"a port alone for POP3", "pop3-stamp", "--pop3 2110", "write inet:2110"},
		{"a host alone", "smtp-proxy", "--smtp localhost", "whole path, or inet_any:PORT"},
		{"an address alone", "pop3-stamp", "--pop3 127.0.0.1", "whole path, or inet_any:PORT"},
		{"a relative socket", "smtp-proxy", "--smtp inet:2525 --notify unix:here", "whole path, or inet_any:PORT"},
		{"a port alone for events", "pop3-stamp", "--pop3 inet:2110 --notify 7", "write inet:7"},
		{"a port alone for the multiplexor", "smtp-proxy", "--smtp inet:2525 --multiplexor 2527", "write inet:2527"},
		{"a listener twice", "smtp-proxy", "--smtp inet:2525 --smtp inet:2525", "inet:2525 is a listener already, smtp"},
		{"two listeners in one place", "pop3-stamp", "--pop3 unix:/run/x --notify /run/x", "/run/x is a listener already, pop3"},
		{"a Maildir that cannot be made", "smtp-proxy", "--smtp inet:2525 --upstream maildir:/proc/none/box", "/proc/none/box"},
		{"a relative multiplexor", "smtp-proxy", "--smtp inet:2525 --multiplexor mx.sock", "no absolute path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			if drops {
				args = append(args, "--user", account)
			}
			for _, mode := range [][]string{{"--check"}, nil} {
				_, stderr, status := testenv.Run(t, testenv.Binary(t, tt.program), append(mode, args...)...)
				if status != config.ExitSettings || !strings.Contains(stderr, tt.want) {
					t.Errorf("%q: status %d, want %d and %q:\n%s", mode, status, config.ExitSettings, tt.want, stderr)
				}
			}
		})
	}
}

// TestSwitchAndValueApart: where a program has commands, the word behind a switch is taken for a wrong one.
func TestSwitchAndValueApart(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"smtp-proxy", "--refuse-relay", "no"}, {"pop3-stamp", "--apop", "no"}} {
		_, stderr, status := testenv.Run(t, testenv.Binary(t, args[0]), args[1:]...)
		if want := "unexpected argument no: write " + args[1] + "=no\n"; status != config.ExitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%v: status %d, want %d and %q:\n%s", args, status, config.ExitUsage, want, stderr)
		}
	}
}

// TestStartRefusesPlaces: a place that is missing is a wrong setting, for the start as for --check.
func TestStartRefusesPlaces(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(testenv.ShortDir(t), "missing")
	account, drops := testenv.DaemonAccount()
	for _, args := range []string{
		"smtp-proxy --smtp inet:%d --multiplexor /m --spool " + missing,
		"smtp-proxy --smtp inet:%d --tls-cert " + missing,
		"smtp-proxy --smtp inet:%d --smtps inet:%[1]d",
		"pop3-stamp --pop3 inet:%d --tls-cert " + missing,
		"pop3-stamp --pop3 inet:%d --notify-users no-such-user",
	} {
		t.Run(args, func(t *testing.T) {
			words := strings.Fields(fmt.Sprintf(args, testenv.FreePort(t)))
			program, words := words[0], words[1:]
			if drops {
				words = append(words, "--user", account)
			}
			for _, mode := range [][]string{{"--check"}, nil} {
				_, stderr, status := testenv.Run(t, testenv.Binary(t, program), append(mode, words...)...)
				if status != config.ExitSettings {
					t.Errorf("%q: status %d, want %d:\n%s", mode, status, config.ExitSettings, stderr)
				}
			}
		})
	}
}

// TestCheckReadsAsTheUser: a key that only root can read is found by root's --check.
func TestCheckReadsAsTheUser(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	dir := testenv.ShortDir(t)
	certificate, key := testenv.NewAuthority(t).Files(dir, "mail.example")
	for _, tt := range []struct {
		mode   os.FileMode
		status int
	}{{0o600, config.ExitSettings}, {0o644, 0}} {
		if err := os.Chmod(key, tt.mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range []string{"smtp-proxy --smtp inet:2525", "pop3-stamp --pop3 inet:2110"} {
			words := append(strings.Fields(args), "--check", "--user", "nobody", "--tls-cert", certificate, "--tls-key", key)
			_, stderr, status := testenv.Run(t, testenv.Binary(t, words[0]), words[1:]...)
			if status != tt.status || status != 0 && !strings.Contains(stderr, key) {
				t.Errorf("%s, key with mode %o: status %d, want %d:\n%s", words[0], tt.mode, status, tt.status, stderr)
			}
		}
	}
}

// TestDrainAnswersNewClients: the service manager keeps the port open while a session ends; who comes meanwhile is
// told so at once, and the next process takes who comes then.
func TestDrainAnswersNewClients(t *testing.T) {
	t.Parallel()
	backend := testenv.StartBackend(t)
	args := []string{"--maxloadavg", "0", "--upstream", "smtp://" + backend.Addr}
	if account, drops := testenv.DaemonAccount(); drops {
		args = append(args, "--user", account)
	}
	socket := testenv.Activate(t, "smtp")
	p := testenv.Start(t, socket.Command(testenv.Binary(t, "smtp-proxy"), args...))
	busy := dialSMTP(t, socket.Addr)
	busy.say("MAIL FROM:<ann@example.org>\r\n", "250")
	busy.say("RCPT TO:<bob@example.net>\r\n", "250")
	busy.say("DATA\r\n", "354")
	p.Stop(syscall.SIGTERM)
	// One that comes while the drain begins may be greeted before.
	testenv.Eventually(t, "new clients are told that the proxy ends", func() bool {
		return strings.HasPrefix(newSMTPClient(t, testenv.Dial(t, "tcp4", socket.Addr)).expect(""), "421 4.3.2")
	})
	for range 3 {
		newSMTPClient(t, testenv.Dial(t, "tcp4", socket.Addr)).expect("421 4.3.2")
	}
	busy.say("Subject: x\r\n\r\ntext\r\n.\r\n", "250")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	next := testenv.Start(t, socket.Command(testenv.Binary(t, "smtp-proxy"), args...))
	dialSMTP(t, socket.Addr).say("QUIT\r\n", "221")
	next.Stop(syscall.SIGTERM)
}

// TestCheckWarnsOfWhatIsBehind: what the settings need, and do not find at the upstream server or the multiplexor, is told before
// mail comes.
func TestCheckWarnsOfWhatIsBehind(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t) // without STARTTLS and XCLIENT
	dir := testenv.ShortDir(t)
	account, _ := testenv.DaemonAccount()
	spool := testenv.DaemonDir(t, filepath.Join(dir, "d"))
	broken := filepath.Join(spool, "mx")
	args := []string{"--foreground", "--config", "/dev/null", "--requests", broken, "--worker", "/bin/false", "--spool", spool, "--log", "stderr"}
	if os.Geteuid() == 0 {
		args = append(args, "--user", account)
	}
	mx := testenv.Start(t, exec.Command(testenv.Binary(t, "multiplexor"), args...))
	mx.WaitOutput("died unexpectedly")
	for _, tt := range []struct{ args, want string }{
		{"--upstream-tls require", "gets no mail with these settings"},
		{"--upstream-client-ip xclient", "gets no mail with these settings"},
		{"--upstream-tls may", ""},
		{"--spool " + spool + " --multiplexor " + filepath.Join(dir, "none"), "the multiplexor does not answer: "},
		{"--spool " + spool + " --multiplexor " + broken, "the multiplexor's workers come to nothing: "},
	} {
		args := strings.Fields("--check --user " + account + " --smtp inet:2525 --refuse-relay=yes --local-domains a.test --upstream smtp://" + b.Addr + " " + tt.args)
		// A machine may be so slow that the time for an answer is over.
		testenv.Eventually(t, tt.args+" warned of: "+tt.want, func() bool {
			_, stderr, status := testenv.Run(t, testenv.Binary(t, "smtp-proxy"), args...)
			if status != 0 || tt.want == "" && strings.Contains(stderr, "gets no mail") {
				t.Errorf("%s: status %d, want %q:\n%s", tt.args, status, tt.want, stderr)
			}
			return strings.Contains(stderr, tt.want)
		})
	}
}

// TestWarnsOfDirectoriesThatCannotBeWritten: what root has made for a daemon that is not root is told by --check and at
// the start, and not by each message or login alone.
func TestWarnsOfDirectoriesThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	account, _ := testenv.DaemonAccount()
	b := testenv.StartBackend(t)
	dir := testenv.ShortDir(t)
	rootsOwn, theirs, spool := filepath.Join(dir, "root"), testenv.DaemonDir(t, filepath.Join(dir, "theirs")), testenv.DaemonDir(t, filepath.Join(dir, "spool"))
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(rootsOwn, 0o755), os.Chmod(rootsOwn, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ program, setting, more string }{
		{"smtp-proxy", "spool", "--multiplexor " + filepath.Join(dir, "none") + " --upstream smtp://" + b.Addr},
		{"smtp-proxy", "keep-dir", "--keep-failed --spool " + spool + " --multiplexor " + filepath.Join(dir, "none") + " --upstream smtp://" + b.Addr},
		{"smtp-proxy", "statdir", "--upstream smtp://" + b.Addr},
		{"pop3-stamp", "statdir", "--upstream pop3://" + b.Addr},
		{"pop3-stamp", "clientip-dir", "--upstream pop3://" + b.Addr},
	} {
		listen := "--" + tt.program[:4] + " tcp:127.0.0.1:0 "
		for _, path := range []string{rootsOwn, theirs} {
			args := strings.Fields(listen + "--user " + account + " --" + tt.setting + " " + path + " " + tt.more)
			want := tt.setting + ": user " + account + " cannot write to " + path
			p := testenv.Start(t, exec.Command(testenv.Binary(t, tt.program), args...))
			p.WaitOutput("msg=ready")
			p.Kill()
			_, stderr, _ := testenv.Run(t, testenv.Binary(t, tt.program), append(args, "--check")...)
			for what, text := range map[string]string{"start": p.Output(), "--check": stderr} {
				if got := strings.Contains(text, want); got != (path == rootsOwn) {
					t.Errorf("%s of %v: warned %v, want %v:\n%s", what, args, got, path == rootsOwn, text)
				}
			}
		}
	}
}

// TestStartWarnsOfMissingStamps: the directory of stamps may come later, but nobody is to wait for it unknowingly.
func TestStartWarnsOfMissingStamps(t *testing.T) {
	t.Parallel()
	account, _ := testenv.DaemonAccount()
	missing := filepath.Join(testenv.ShortDir(t), "none")
	p := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), "--user", account, "--pop3", "tcp:127.0.0.1:0",
		"--upstream", "pop3://127.0.0.1", "--clientip-dir", missing))
	p.WaitOutput("msg=ready")
	p.Kill()
	if want := "clientip-dir: no stamps can be written: stat " + missing; !strings.Contains(p.Output(), want) {
		t.Errorf("%q is not in the log:\n%s", want, p.Output())
	}
}

// TestStartWarnsOfWhatOnlyRootReads: a reload that must fail is told at the start.
func TestStartWarnsOfWhatOnlyRootReads(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	account, _ := testenv.DaemonAccount()
	dir := testenv.ShortDir(t)
	conf := filepath.Join(dir, "conf")
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o644: false} {
		text := "user " + account + "\npop3 unix:" + testenv.DaemonDir(t, filepath.Join(dir, fmt.Sprint(mode))) + "/s\n"
		if err := errors.Join(os.WriteFile(conf, []byte(text), mode), os.Chmod(conf, mode)); err != nil {
			t.Fatal(err)
		}
		p := testenv.Start(t, exec.Command(testenv.Binary(t, "pop3-stamp"), "--config", conf))
		p.WaitOutput("msg=ready")
		p.Kill()
		if got := strings.Contains(p.Output(), "reloads will fail: "+conf); got != want {
			t.Errorf("%v: warned %v, want %v:\n%s", mode, got, want, p.Output())
		}
	}
}
