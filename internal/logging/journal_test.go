package logging

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"postern/internal/testenv"
)

// journalVariable makes the test binary play a journal and a program that logs
// to it, in a mount namespace of its own: the library knows only the one socket.
const journalVariable = "LOGGING_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if os.Getenv(journalVariable) != "" {
		if err := journalChild(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

func journalChild() error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if _, _, err := New(Options{Target: Journal}); err == nil {
		return fmt.Errorf("no error without a journal")
	}
	if err := os.MkdirAll("/run/systemd/journal", 0o755); err != nil {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket"})
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		return err
	}
	os.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	for _, target := range []string{Journal, Auto} {
		log, _, err := New(Options{Target: target, Facility: "mail", Tag: "postern-test"})
		if err != nil {
			return err
		}
		log.Warn("to "+target+" x=y (z); w=1", "k", "v", "peer-name", "a b", "(no name)", "n")
		testenv.Patient(conn)
		buf := make([]byte, 1<<16)
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		fmt.Print(string(buf[:n]))
	}
	return nil
}

func TestJournal(t *testing.T) {
	testenv.NeedNamespaces(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), journalVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, stderr, status := testenv.RunCmd(t, cmd)
	for _, want := range []string{
		"MESSAGE=to journal x=y (z); w=1 k=v peer-name=\"a b\" \"(no name)\"=n\n", "MESSAGE=to auto x=y", "PRIORITY=4\n",
		"POSTERN_K=v\n", "POSTERN_PEER_NAME=a b\n",
		"SYSLOG_IDENTIFIER=postern-test\n", "SYSLOG_FACILITY=2\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("status %d, output %q %q; want %q", status, out, stderr, want)
		}
	}
}

// Standard error that is not the journal's is logged to as it is.
func TestAutoIsStderr(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "1:1")
	var out strings.Builder
	log, queue, err := New(Options{Target: Auto, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("x")
	flush(t, queue)
	if !strings.Contains(out.String(), "msg=x") {
		t.Errorf("output %q", out.String())
	}
	if _, ok := log.Handler().(*slog.TextHandler); !ok {
		t.Errorf("handler is a %T", log.Handler())
	}
}
