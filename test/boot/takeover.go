package boot

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// mailbox is a Maildir as the next hop of the proxy.
const mailbox = "/var/spool/postern/box"

// beforeMailbox starts the proxy in front of the Maildir.
func (m *machine) beforeMailbox(drainTimeout string) error {
	if err := m.settings("drain-timeout " + drainTimeout + "\nupstream maildir:" + mailbox + "\nmax-sessions-per-address 0\nmax-rate-per-address 0\nrefuse-relay yes\nlocal-domains example.org"); err != nil {
		return err
	}
	_, err := m.run("systemctl stop postfix; mkdir -p " + mailbox + "/new " + mailbox + "/cur " + mailbox + "/tmp; chown -R postern:postern " + mailbox +
		"; systemctl start smtp-proxy.socket smtp-proxy")
	return err
}

// underMail does something three times while four clients send mail. What was answered 250 must be delivered, once. It
// returns how often a client was told to come again.
func (m *machine) underMail(do func() error) (again int, err error) {
	stop := make(chan struct{})
	var senders sync.WaitGroup
	sent, failed := make([]sending, 4), make([]error, 4)
	for i := range sent {
		senders.Go(func() { sent[i], failed[i] = m.sendUntil(stop, "b@example.org", fmt.Sprintf("X-Sender: %d-", i)) })
	}
	for range 3 {
		time.Sleep(time.Second)
		if err = do(); err != nil {
			break
		}
	}
	close(stop)
	senders.Wait()
	if err := errors.Join(append(failed, err)...); err != nil {
		return 0, err
	}
	for i, s := range sent {
		again += s.again
		out, err := m.run(fmt.Sprintf("cat %s/new/* | grep '^X-Sender: %d-' | sort | uniq -c | awk '$1 == 1' | wc -l", mailbox, i))
		if err != nil || s.accepted < 3 || strings.TrimSpace(out) != fmt.Sprint(s.accepted) {
			return again, fmt.Errorf("sender %d: %d messages accepted, %q delivered once (%v)", i, s.accepted, out, err)
		}
	}
	return again, nil
}

// takeOvers: settings that a process has for life are changed and reloaded while mail comes, three times: a new process
// takes over before the command ends, and nobody is told to come again. systemd knows the new one, and its watchdog is
// content.
func takeOvers(m *machine) error {
	if err := m.beforeMailbox("60s"); err != nil {
		return err
	}
	const main = "systemctl show -P MainPID smtp-proxy; "
	changes := 0
	again, err := m.underMail(func() error {
		changes++
		out, err := m.run(fmt.Sprintf("set -e; %s sed -i '/^hostname/d' /etc/postern/smtp-proxy.conf; echo hostname gw%d.example.org >>/etc/postern/smtp-proxy.conf; systemctl reload smtp-proxy; %[1]s", main, changes))
		if err != nil {
			return err
		}
		if pids := strings.Fields(out); len(pids) != 2 || pids[0] == pids[1] {
			return fmt.Errorf("main processes before and after: %q", out)
		}
		c, greeting, err := m.connect(25)
		if err != nil || !strings.Contains(greeting, fmt.Sprintf("gw%d.example.org", changes)) {
			return fmt.Errorf("after change %d the greeting is %q (%v)", changes, greeting, err)
		}
		return c.conn.Close()
	})
	if err != nil {
		return err
	}
	if again > 0 {
		return fmt.Errorf("%d clients were told to come again", again)
	}
	out, err := m.run("sleep 35; systemctl is-active smtp-proxy; systemctl show -P NRestarts smtp-proxy")
	if err != nil || out != "active\n0\n" {
		return fmt.Errorf("more than WatchdogSec later: %q, %v", out, err)
	}
	return nil
}
