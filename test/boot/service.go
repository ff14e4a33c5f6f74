package boot

import (
	"errors"
	"fmt"
	"strings"
)

// reloads: the status of systemctl reload is that of the reload, and what is wrong changes nothing.
func reloads(m *machine) error {
	const filterSettings = "/etc/postern/filter-basic.conf"
	good := "upstream smtp://127.0.0.1:1\nmax-errors 9"
	if err := m.settings(good); err != nil {
		return err
	}
	if _, err := m.run("systemctl stop postfix; cp " + filterSettings + " /tmp/filter.conf; systemctl start smtp-proxy.socket smtp-proxy multiplexor"); err != nil {
		return err
	}
	for _, step := range []struct {
		unit, before, want string
		settings           string
	}{
		{unit: "smtp-proxy", settings: good},
		{unit: "smtp-proxy", settings: "no-such-setting yes", want: "no-such-setting"},
		{unit: "smtp-proxy", settings: "tls-cert /etc/none", want: "/etc/none"},
		{unit: "smtp-proxy", settings: good + "\nrefuse-relay yes\nlocal-domains example.org"},
		{unit: "multiplexor"},
		{unit: "multiplexor", before: "echo no-such-setting yes >>" + filterSettings, want: "no-such-setting"},
		{unit: "multiplexor", before: "cp /tmp/filter.conf " + filterSettings},
	} {
		if step.settings != "" {
			if err := m.settings(step.settings); err != nil {
				return err
			}
		}
		began, err := m.run(step.before + "\ndate +%s")
		if err != nil {
			return err
		}
		_, err = m.run("systemctl reload " + step.unit)
		said, _ := m.journal("--since @" + strings.TrimSpace(began) + " -u " + step.unit)
		if (err == nil) != (step.want == "") || !strings.Contains(said, step.want) {
			return fmt.Errorf("reload of %s with %q: %v, want %q:\n%s", step.unit, step.settings+step.before, err, step.want, said)
		}
	}
	out, err := m.run("systemctl is-active smtp-proxy multiplexor")
	if err != nil {
		return fmt.Errorf("after that: %s: %w", out, err)
	}
	return nil
}

// socketsAlone: the socket that is enabled is all that a daemon listens on, and with none it does not claim to serve.
func socketsAlone(m *machine) error {
	if err := m.settings("upstream smtp://127.0.0.1:1"); err != nil {
		return err
	}
	if err := m.write("/etc/postern/pop3-stamp.conf", "upstream pop3://127.0.0.1:1\n", 0o644); err != nil {
		return err
	}
	if _, err := m.run("systemctl stop postfix dovecot dovecot.socket; true"); err != nil {
		return err
	}
	for _, daemon := range []string{"smtp-proxy", "pop3-stamp"} {
		if out, err := m.run("systemctl start " + daemon); err == nil {
			return fmt.Errorf("%s has started with nothing to listen on: %s", daemon, out)
		}
		if out, err := m.run("systemctl show -P ExecMainStatus " + daemon); err != nil || out != "78\n" {
			return fmt.Errorf("%s with nothing to listen on: status %q, %v", daemon, out, err)
		}
	}
	for _, s := range []struct {
		socket, greeting string
		port             int
	}{{"smtp-proxy", "220", 25}, {"smtp-proxy-submission", "220", 587}, {"pop3-stamp", "+OK", 110}} {
		service := strings.TrimSuffix(s.socket, "-submission")
		if _, err := m.run("systemctl stop '" + service + "*'; systemctl enable --now " + s.socket + ".socket 2>&1"); err != nil {
			return err
		}
		c, greeting, err := m.connect(s.port)
		if err != nil || !strings.HasPrefix(greeting, s.greeting) {
			said, _ := m.journal("-u " + service)
			return fmt.Errorf("%s.socket alone says %q (%v)\n%s", s.socket, greeting, err, said)
		}
		c.conn.Close()
		if _, err := m.run("systemctl disable --now " + s.socket + ".socket 2>&1; systemctl stop " + service); err != nil {
			return err
		}
	}
	return nil
}

// restarts: the proxy is started anew, three times, while mail comes: each client is greeted, and no end is a failure, not
// even of a session that is waited for too long.
func restarts(m *machine) error {
	if err := m.beforeMailbox("3s"); err != nil {
		return err
	}
	if _, err := m.underMail(func() error { _, err := m.run("systemctl restart smtp-proxy"); return err }); err != nil {
		return err
	}
	c, _, err := m.connect(25)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for _, step := range [][2]string{{"EHLO client.example", "250"}, {"MAIL FROM:<a@client.example>", "250"}, {"RCPT TO:<b@example.org>", "250"}, {"DATA", "354"}} {
		if err := c.say(step[0], step[1]); err != nil {
			return err
		}
	}
	out, err := m.run("systemctl stop smtp-proxy.socket smtp-proxy 2>/dev/null; systemctl show -P Result smtp-proxy")
	if err != nil || out != "success\n" {
		return fmt.Errorf("a stop that ran into the limit: %q (%v)", out, err)
	}
	return nil
}

// brokenWorkers: workers that come to nothing are no workers to anybody, and their last words are where one looks.
func brokenWorkers(m *machine) error {
	const words = "no module named Filter"
	if err := m.write("/usr/local/bin/broken", "#!/bin/sh\necho '"+words+"' >&2\nexit 3\n", 0o755); err != nil {
		return err
	}
	if _, err := m.run("sed -i 's|^worker .*|worker /usr/local/bin/broken|' /etc/postern/multiplexor.conf; systemctl start multiplexor"); err != nil {
		return err
	}
	for _, look := range []string{"journalctl -b --no-pager -u multiplexor", "mx-ctrl status", "systemctl show -P StatusText multiplexor", "notify-cat --once"} {
		if err := until("the last words of a worker", func() error {
			out, err := m.run(look)
			if err == nil && !strings.Contains(out, words) {
				err = fmt.Errorf("%s says\n%s", look, out)
			}
			return err
		}); err != nil {
			return err
		}
	}
	if out, err := m.run("notify-wait --timeout 1s 'working>=1'; [ $? -eq 124 ]"); err != nil {
		return fmt.Errorf("notify-wait has not waited for a worker in vain: %s", out)
	}
	return nil
}

// sending is what became of the messages of a client.
type sending struct {
	accepted int
	again    int // told to come again
}

// sendUntil sends messages with numbered fields, a session each, until stop is closed. A client that is told to come again
// does.
func (m *machine) sendUntil(stop <-chan struct{}, to, field string) (sent sending, err error) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return sent, nil
		default:
		}
		c, greeting, err := m.connect(25)
		if err != nil {
			return sent, fmt.Errorf("not greeted: %q: %w", greeting, err)
		}
		if strings.HasPrefix(greeting, "220") {
			err = c.send(to, fmt.Sprint(field, n))
		} else {
			err = fmt.Errorf("greeting %q", greeting)
		}
		c.conn.Close()
		switch {
		case err == nil:
			sent.accepted++
		case strings.Contains(err.Error(), `"421 `), strings.Contains(err.Error(), `"451 4.3.0 `): // while the workers start again
			sent.again++
		default:
			return sent, err
		}
	}
}

// killed: whatever ends a daemon or stops it, clients find it again, and none of its ends closes the port.
func killed(unit string) func(*machine) error {
	return func(m *machine) error {
		if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
			return err
		}
		for _, signal := range []string{"KILL", "STOP"} { // a stopped one is found by the watchdog
			before, err := m.run("systemctl show -P MainPID " + unit + "; systemctl kill --kill-whom=main -s " + signal + " " + unit)
			if err != nil {
				return err
			}
			if err := until(unit+" after SIG"+signal, func() error {
				after, err := m.run("systemctl is-active -q " + unit + " && systemctl show -P MainPID " + unit)
				if err == nil && after == before {
					err = errors.New("still the same process")
				}
				return err
			}); err != nil {
				return err
			}
			if err := m.mailPasses(unit+"-"+signal, true); err != nil {
				return err
			}
		}
		return nil
	}
}

// fullDisk: while there is no room for working directories clients keep their mail, and afterwards it passes.
func fullDisk(m *machine) error {
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	// The mount is to be seen in the sandbox of the services, too.
	if _, err := m.run("set -e; systemctl stop smtp-proxy multiplexor; mount -t tmpfs -o size=1m,mode=2750,uid=$(id -u postern),gid=$(id -g postern-filter) tmpfs /var/spool/postern; " +
		"systemctl start multiplexor smtp-proxy; dd if=/dev/zero of=/var/spool/postern/ballast bs=4k 2>/dev/null || true"); err != nil {
		return err
	}
	c, greeting, err := m.connect(25)
	if err != nil || !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("port 25 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	if err := c.send("kate@example.org", "Subject: full"); err == nil || !strings.Contains(err.Error(), `is "4`) {
		return fmt.Errorf("with a full disk: %v, want a reply 4xx", err)
	}
	if _, err := m.run("rm /var/spool/postern/ballast"); err != nil {
		return err
	}
	return m.mailPasses("room", true)
}
