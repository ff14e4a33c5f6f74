package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/internal/testenv"
)

// example is a command that runs one of the ready examples as they are
// installed, with our programs in the path.
func example(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir := filepath.Dir(testenv.Binary(t, "notify-exec"))
	testenv.Binary(t, "notify-cat")
	cmd := exec.Command(filepath.Join(testenv.Root(t), "etc", "examples", name), args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":/usr/sbin:/sbin:"+os.Getenv("PATH"))
	return cmd
}

// TestExampleShutPort25 shuts the port with real nftables, in a network
// namespace of its own.
func TestExampleShutPort25(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "example shut-port-25", "ip", "nft", "nc")
	testenv.NeedNamespaces(t)
	ip := testenv.Path(t, "example shut-port-25", "ip")
	ns := fmt.Sprintf("postern-%d", os.Getpid())
	if _, stderr, status := testenv.Run(t, ip, "netns", "add", ns); status != 0 {
		t.Fatal(stderr)
	}
	t.Cleanup(func() { testenv.Run(t, ip, "netns", "del", ns) })
	inside := func(cmd *exec.Cmd) *exec.Cmd {
		c := exec.Command(ip, append([]string{"netns", "exec", ns}, cmd.Args...)...)
		c.Env = cmd.Env
		return c
	}
	if _, stderr, status := testenv.RunCmd(t, inside(exec.Command(ip, "link", "set", "lo", "up"))); status != 0 {
		t.Fatal(stderr)
	}
	testenv.Start(t, inside(exec.Command("nc", "-lk", "127.0.0.1", "25")))
	port25 := func() bool {
		_, _, status := testenv.RunCmd(t, inside(exec.Command("nc", "-z", "-w", "2", "127.0.0.1", "25")))
		return status == 0
	}
	testenv.Eventually(t, "a server at port 25", port25)

	p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
	ex := testenv.Start(t, inside(example(t, "shut-port-25", "-v", p.notify)))
	ex.WaitOutput("flush")
	if !port25() {
		t.Fatal("port 25 is shut although a worker is free")
	}
	release := p.hold()
	testenv.Eventually(t, "port 25 is shut", func() bool { return !port25() })
	release()
	testenv.Eventually(t, "port 25 is open again", port25)

	release = p.hold()
	testenv.Eventually(t, "port 25 is shut", func() bool { return !port25() })
	ex.Stop(syscall.SIGTERM)
	if status := ex.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if !port25() {
		t.Error("port 25 is shut although nobody watches any more")
	}
	release()
}

func TestExampleSlowScans(t *testing.T) {
	t.Parallel()
	p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
	ex := testenv.Start(t, example(t, "slow-scans", "200", p.notify))
	printed := func() int { return strings.Count(ex.Output(), " ms: hold "+filepath.Join(p.dir, "hold")+"\n") }
	slow := func() {
		seen := printed()
		testenv.Eventually(t, "a slow request is printed", func() bool {
			release := p.hold()
			testenv.Pause(300 * time.Millisecond) // this is how slow it is
			release()
			return printed() > seen
		})
	}
	began := time.Now()
	slow()
	line, most := ex.Output(), time.Since(began).Milliseconds()+1
	var worker, ms int64
	if n, err := fmt.Sscanf(line, "worker %d: %d ms: hold", &worker, &ms); n != 2 || worker != 0 || ms < 250 || ms > most {
		t.Errorf("%q: %v", line, err)
	}
	p.hold()() // a quick one is not
	began = time.Now()
	if reply, err := p.ask("relayok x\n"); err != nil || reply != "ok\n" {
		t.Errorf("%q, %v", reply, err)
	}
	took := time.Since(began)
	slow() // by now the one before would have been
	if strings.Contains(ex.Output(), "relayok") && took < 200*time.Millisecond {
		t.Errorf("a request that took %v is printed: %q", took, ex.Output())
	}
}

func TestExampleAlert(t *testing.T) {
	t.Parallel()
	p := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
	mails := filepath.Join(testenv.ShortDir(t), "mails")
	cmd := example(t, "alert", "--debounce=50ms", "--min-hold=100ms", p.notify)
	cmd.Env = append(cmd.Env, "ALERT=tee -a "+mails)
	testenv.Start(t, cmd)
	read := func() string { text, _ := os.ReadFile(mails); return string(text) }
	alarm, clear := "Subject: mx: no worker is free\n", "Subject: mx: workers are free again\n"
	release := p.hold()
	testenv.Eventually(t, "an alert", func() bool { return strings.HasPrefix(read(), alarm) })
	release()
	testenv.Eventually(t, "the all-clear", func() bool { return strings.Contains(read(), clear) })
	if n := strings.Count(read(), "Subject: "); n != 2 {
		t.Errorf("%d mails, want 2: %q", n, read())
	}
}

// TestNotifyOverTCP has one notify-cat read the events of two daemons, one of
// them over TCP as from another host.
func TestNotifyOverTCP(t *testing.T) {
	t.Parallel()
	port := testenv.FreePort(t)
	far := startNotifyPool(t, testenv.Binary(t, "multiplexor"), fmt.Sprintf("inet:%d", port))
	near := startNotifyPool(t, testenv.Binary(t, "multiplexor"), "")
	cat := testenv.Start(t, exec.Command(testenv.Binary(t, "notify-cat"), "--raw", "-t", "Z", near.notify,
		fmt.Sprintf("far=tcp:127.0.0.1:%d", port)))
	near.untilHeard(cat.Output, "mx Z\n", "mx Z\n")
	far.untilHeard(cat.Output, "far Z\n", "far Z\n")
}
