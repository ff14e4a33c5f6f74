package boot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// thePackage is where the .deb is in a machine, and olderPackage one of an older version, with the same in it.
const (
	thePackage   = "/var/cache/postern/new.deb"
	olderPackage = "/var/cache/postern/old.deb"
)

// packageFile gives the .deb of prepare.sh.
func (s *site) packageFile() (string, error) {
	found, err := filepath.Glob(filepath.Join(s.root, "bin/packages/postern_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%d packages in bin/packages, want one (%w)", len(found), err)
	}
	return found[0], nil
}

// bring puts the package into a machine that is not booted yet.
func (m *machine) bring() error {
	file, err := m.packageFile()
	if err != nil {
		return err
	}
	to := m.dir + ".upper" + thePackage
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", file, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// makeInstall: what make install has put to its usual place, instead of the package, works as well.
func makeInstall(m *machine) error {
	if _, err := m.run("dpkg -P postern 2>&1"); err != nil {
		return err
	}
	out, err := exec.Command("make", "-s", "-C", m.root, "install", "DESTDIR=/proc/"+fmt.Sprint(m.init.Process.Pid)+"/root").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make install: %w\n%s", err, out)
	}
	if _, err := m.run("systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload"); err != nil {
		return err
	}
	return setup{section: "IN FRONT OF POSTFIX", before: withPostfix, passes: filtered}.play(m)
}

// older makes a package of an older version of that which is installed, and installs it.
func (m *machine) older() error {
	_, err := m.run("set -e; cd /var/tmp; dpkg-deb -R " + thePackage + " old; sed -i 's/^Version: .*/Version: 0.0.1/' old/DEBIAN/control; dpkg-deb -Zgzip -z1 -b old " +
		olderPackage + " 2>&1; dpkg -P postern 2>&1; dpkg -i " + olderPackage + " 2>&1")
	return err
}

// upgrade: a new version is installed while mail comes: every client is served, settings stay, and the new one runs.
func upgrade(m *machine) error {
	if err := m.older(); err != nil {
		return err
	}
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	const state = "cat /etc/postern/smtp-proxy.conf; systemctl show -P MainPID smtp-proxy multiplexor"
	before, err := m.run(state)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	var sender sync.WaitGroup
	var sent sending
	var failed error
	sender.Go(func() { sent, failed = m.sendUntil(stop, "kate@example.org", "X-Upgrade: ") })
	time.Sleep(time.Second)
	_, err = m.run("dpkg -i " + thePackage + " 2>&1")
	time.Sleep(time.Second)
	close(stop)
	sender.Wait()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if sent.accepted == 0 {
		return errors.New("no message was accepted")
	}
	settings := func(text string) string { return text[:strings.LastIndex(text, "maxloadavg")] }
	pids := func(text string) []string { f := strings.Fields(text); return f[len(f)-2:] }
	// The new process of smtp-proxy takes over as soon as it is ready.
	if err := until("the new processes", func() error {
		after, err := m.run(state)
		if err != nil || settings(after) != settings(before) {
			return fmt.Errorf("settings before:\n%s\nafter:\n%s\n%w", before, after, err)
		}
		for i, pid := range pids(after) {
			if pid == "0" || pid == pids(before)[i] {
				return fmt.Errorf("processes before %v, after %v", pids(before), pids(after))
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if out, err := m.run("dpkg-query -W -f '${Version}' postern; systemctl list-units --failed --no-legend 'smtp-proxy*' 'multiplexor*' 'pop3-stamp*'"); err != nil || strings.Contains(out, "0.0.1") || strings.Contains(out, "failed") {
		return fmt.Errorf("after the upgrade: %q (%v)", out, err)
	}
	if said, err := m.journal("-u smtp-proxy"); err != nil || !strings.Contains(said, "another process has taken over") {
		return fmt.Errorf("smtp-proxy was started anew (%v):\n%s", err, said)
	}
	return m.mailPasses("upgraded", true)
}

// removal: what runs is stopped, also for the next start of the machine, settings stay until the purge, and then nothing.
func removal(m *machine) error {
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	if _, err := m.run("dpkg -r postern 2>&1"); err != nil {
		return err
	}
	left := "ss -Hltn sport = 25; pgrep -af '/(smtp-proxy|multiplexor|filter-basic)( |$)'; systemctl list-unit-files --no-legend 'smtp-proxy*' 'multiplexor*' 'pop3-stamp*' 'postern*'; " +
		"systemctl list-units --all --no-legend 'smtp-proxy*' 'multiplexor*'; systemctl list-units --failed --no-legend 'smtp-proxy*' 'multiplexor*' 'pop3-stamp*'; find /etc/systemd -name 'smtp-proxy*' -o -name 'multiplexor*'; true"
	if out, err := m.run(left); err != nil || out != "" {
		return fmt.Errorf("left after removal (%v):\n%s", err, out)
	}
	if _, err := m.run("grep -q example.org /etc/postern/smtp-proxy.conf"); err != nil {
		return fmt.Errorf("settings are lost at removal: %w", err)
	}
	if _, err := m.run("dpkg -P postern 2>&1"); err != nil {
		return err
	}
	if err := m.reboot(); err != nil {
		return err
	}
	out, err := m.run(left + "; find /etc /usr /var/spool/postern /var/lib/postern* /run/postern -path '*postern*' -not -path '/usr/share/doc/*' 2>/dev/null; true")
	if err != nil || out != "" {
		return fmt.Errorf("left after the purge (%v):\n%s", err, out)
	}
	return nil
}
