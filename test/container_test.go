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

// container is the root file system of the image, with the user, the directories and the namespaces that a container has.
// There is no container runtime: chroot and unshare(1) stand for it.
type container struct {
	t    *testing.T
	root string
}

func (c *container) command(env string, args ...string) *exec.Cmd {
	cmd := exec.Command("unshare", append([]string{"--mount-proc=" + c.root + "/proc", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--", "setpriv", "--no-new-privs", "--bounding-set=-all,+setuid,+setgid,+sys_chroot",
		"--", "chroot", "--userspec=65532:65532", "--groups=", c.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", env}
	return cmd
}

// TestContainer: the image's programs need nothing but what is in it, and no right; its health check tells who answers.
func TestContainer(t *testing.T) {
	t.Parallel()
	testenv.NeedNamespaces(t)
	testenv.Need(t, "container", "make", "setpriv")
	c := &container{t: t, root: testenv.ShortDir(t)}
	built := ""
	for program := range programs {
		built = filepath.Dir(testenv.Binary(t, program))
	}
	cmd := exec.Command("etc/container/rootfs", c.root)
	cmd.Dir = testenv.Root(t)
	cmd.Env = append(os.Environ(), "BIN="+built)
	if stdout, stderr, status := testenv.RunCmd(t, cmd); status != 0 {
		t.Fatalf("etc/container/rootfs: status %d\n%s%s", status, stdout, stderr)
	}
	backend := testenv.StartBackend(t)
	port := testenv.FreePort(t)
	pool := testenv.Start(t, c.command("", "/usr/sbin/multiplexor", "--foreground"))
	t.Cleanup(pool.Kill) // unshare ignores SIGTERM
	pool.WaitOutput("msg=ready")
	proxy := testenv.Start(t, c.command("SMTP_PROXY_LOCAL_DOMAINS=example.org", "/usr/sbin/smtp-proxy", "--maxloadavg", "0",
		"--smtp", fmt.Sprintf("inet:%d", port), "--metrics", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--upstream", "smtp://"+backend.Addr))
	t.Cleanup(proxy.Kill)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	proxy.WaitOutput("msg=ready")
	sendAs(t, address, "", "a@client.example", "b@example.org")
	if got := backend.Messages(); len(got) != 1 || !strings.Contains(got[0].Data, "X-Filtered-By") {
		t.Errorf("the next hop got %d messages, want one that was filtered: %+v", len(got), got)
	}

	dockerfile := readTree(t, "etc/container/Containerfile")
	_, health, _ := strings.Cut(dockerfile, "\nHEALTHCHECK CMD [")
	health, _, _ = strings.Cut(health, "]\n")
	check := strings.FieldsFunc(health, func(r rune) bool { return r == '"' || r == ',' || r == ' ' })
	if stdout, stderr, status := testenv.RunCmd(t, c.command("", check...)); status != 0 {
		t.Errorf("%q: status %d\n%s%s", check, status, stdout, stderr)
	}
	testenv.Eventually(t, "a healthy multiplexor", func() bool {
		_, _, status := testenv.RunCmd(t, c.command("", "/usr/sbin/mx-ctrl", "health"))
		return status == 0
	})
	proxy.Kill()
	if _, _, status := testenv.RunCmd(t, c.command("", check...)); status == 0 {
		t.Errorf("%q succeeds with no proxy", check)
	}
	for _, name := range []string{"bin/sh", "etc/shadow", "usr/share"} {
		if _, err := os.Stat(filepath.Join(c.root, name)); err == nil {
			t.Errorf("the image has /%s", name)
		}
	}
}
