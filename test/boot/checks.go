package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var checks = []check{
	{"events-after-installation", eventsAfterInstallation},
	{"events-without-units", eventsWithoutUnits},
	{"in-front-of-postfix", inFrontOfPostfix},
	{"behind-postfix", behindPostfix},
	{"exec-sendmail", execSendmail},
	{"wrong-settings", wrongSettings},
	{"quarantine", quarantine},
	{"reload", reloads},
	{"sockets-alone", socketsAlone},
	{"restart-under-mail", restarts},
}

// settings writes those of smtp-proxy. What the machine of the test does beside it is no reason to refuse mail.
func (m *machine) settings(text string) error {
	return m.write("/etc/postern/smtp-proxy.conf", text+"\nmaxloadavg 0\n", 0o644)
}

// eventsAfterInstallation: somebody who may watch sees something, without a setting.
func eventsAfterInstallation(m *machine) error {
	if _, err := m.run("systemctl enable --now multiplexor && useradd -G postern bob && useradd eve"); err != nil {
		return err
	}
	out, err := m.run("runuser -u bob -- timeout 20 notify-cat -n 1")
	if err != nil || out == "" {
		return fmt.Errorf("a member of postern hears %q: %w", out, err)
	}
	if out, err := m.run("runuser -u eve -- timeout 5 notify-cat --once"); err == nil {
		return fmt.Errorf("anybody hears %q", out)
	}
	return nil
}

// eventsWithoutUnits: the samples as installed, and the accounts and directories that postern(7) makes, are all that it takes
// where no unit makes sockets.
func eventsWithoutUnits(m *machine) error {
	b, err := blocks("postern.7", ".Ss Accounts", 0)
	if err != nil {
		return err
	}
	if _, err := m.run("set -e; systemctl stop postfix 'smtp-proxy*' 'multiplexor*'; rm -rf /run/postern /var/spool/postern; sed -i '/^postern/d' /etc/passwd /etc/group /etc/shadow /etc/gshadow"); err != nil {
		return err
	}
	// Not as children of the shell, whose output is waited for.
	start := strings.NewReplacer("\nmultiplexor ", "\nsetsid -f multiplexor ", "\nsmtp-proxy ", "\nsetsid -f smtp-proxy ", " &\n", "\n").Replace(b[0])
	if _, err := m.run("exec >/tmp/start.log 2>&1 </dev/null; set -e\n" + start + "\nuseradd -G postern bob && useradd eve"); err != nil {
		log, _ := m.run("cat /tmp/start.log")
		return fmt.Errorf("%w: %s", err, log)
	}
	for _, daemon := range []string{"multiplexor", "smtp-proxy"} {
		socket := "/run/postern/" + daemon + "-notify.sock"
		if err := until(time.Minute, "events of "+daemon, func() error {
			_, err := m.run("runuser -u bob -- timeout 10 notify-cat -n 1 " + socket)
			return err
		}); err != nil {
			log, _ := m.run("cat /tmp/start.log; ls -la /run/postern")
			return fmt.Errorf("%w: %s", err, log)
		}
		if out, err := m.run("runuser -u eve -- timeout 5 notify-cat --once " + socket); err == nil {
			return fmt.Errorf("anybody hears %q", out)
		}
	}
	return nil
}

// postfixAt makes a Postfix of the services in place of that at port 25, which runs before and after a reboot.
func (m *machine) postfixAt(services string) error {
	if err := m.write("/tmp/services", services, 0o644); err != nil {
		return err
	}
	_, err := m.run("sed -i '/^smtp  *inet/d' /etc/postfix/master.cf && cat /tmp/services >>/etc/postfix/master.cf && useradd -m kate")
	return err
}

// inFrontOfPostfix follows postern(7).
func inFrontOfPostfix(m *machine) error {
	b, err := blocks("postern.7", ".Ss In front of Postfix on the same host", 0, 1, 2)
	if err != nil {
		return err
	}
	if _, err := m.run("systemctl enable postfix 2>&1"); err != nil {
		return err
	}
	return m.setUp(b[0], b[1], b[2], "smtp-proxy")
}

// behindPostfix follows postern(7): Postfix keeps its port, also when the machine starts again.
func behindPostfix(m *machine) error {
	b, err := blocks("postern.7", ".Ss Behind Postfix, as its filter before the queue", 0, 1, 2)
	if err != nil {
		return err
	}
	if _, err := m.run("systemctl enable postfix 2>&1"); err != nil {
		return err
	}
	return m.setUp(b[0], b[1], b[2], "master")
}

// dropIn copies an example to where a service finds it, as the pages say.
func (m *machine) dropIn(example, service string) error {
	dir := "/etc/systemd/system/" + service + ".service.d"
	_, err := m.run("install -D -m 644 /usr/local/share/doc/postern/examples/" + example + " " + dir + "/" + example + " && systemctl daemon-reload")
	return err
}

// execSendmail hands mail to the sendmail of this host: without the drop-in with a warning, with it for good.
func execSendmail(m *machine) error {
	settings := "smtp inet_any:25\nupstream exec:/usr/sbin/sendmail -bs\nrefuse-relay yes\nlocal-domains example.org\n"
	if err := m.settings(settings); err != nil {
		return err
	}
	start := "sed -i '/^smtp  *inet/d' /etc/postfix/master.cf && useradd -m kate && systemctl start postfix && systemctl start smtp-proxy"
	if _, err := m.run(start); err != nil {
		return err
	}
	if said, err := m.run("journalctl -u smtp-proxy"); err != nil || !strings.Contains(said, "no_new_privs") {
		return fmt.Errorf("without the drop-in nobody is warned (%v):\n%s", err, said)
	}
	if err := m.dropIn("exec-sendmail.conf", "smtp-proxy"); err != nil {
		return err
	}
	if _, err := m.run("systemctl restart smtp-proxy"); err != nil {
		return err
	}
	return m.mailPasses("exec", false)
}

// setUp makes a set-up with Postfix and wants mail to pass, with port 25 held by the program, also after a reboot.
func (m *machine) setUp(services, settings, commands, holder string) error {
	if err := m.postfixAt(services); err != nil {
		return err
	}
	if err := m.settings(settings); err != nil {
		return err
	}
	if _, err := m.run("set -e\n" + commands); err != nil {
		return err
	}
	if err := m.mailPasses("before", true); err != nil {
		return err
	}
	if err := m.reboot(); err != nil {
		return err
	}
	if err := m.mailPasses("after", true); err != nil {
		return fmt.Errorf("after the reboot: %w", err)
	}
	out, err := m.run("ss -Hltnp sport = 25")
	if err != nil || !strings.Contains(out, holder) {
		return fmt.Errorf("port 25 is held by %q (%v), want %s", out, err, holder)
	}
	return nil
}

// mailPasses sends a message to port 25 and looks whether kate has got it, and a worker has seen it if it is filtered.
func (m *machine) mailPasses(word string, filtered bool) error {
	c, greeting, err := m.connect(25, 10*time.Second)
	if err != nil || !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("port 25 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	if err := c.send("kate@example.org", "Subject: "+word); err != nil {
		return err
	}
	return until(time.Minute, "mail in the box", func() error {
		mail, err := m.run("cat /var/mail/kate")
		if err == nil && !strings.Contains(mail, "Subject: "+word) {
			err = errors.New("no such message")
		}
		if err == nil && filtered && !strings.Contains(mail, "X-Filtered-By") {
			err = errors.New("the message was not filtered")
		}
		return err
	})
}

// wrongSettings: a start that wrong settings prevent is not tried in a hurry, and does not close the port to clients; once the
// settings are right they are served.
func wrongSettings(m *machine) error {
	if err := m.settings("no-such-setting yes"); err != nil {
		return err
	}
	if _, err := m.run("systemctl stop postfix; systemctl start smtp-proxy.socket"); err != nil {
		return err
	}
	// Clients who wait, as long as six starts would take that follow each other at once.
	if _, err := m.run("for i in 1 2 3 4 5 6 7 8; do timeout 2 nc 127.0.0.1 25 </dev/null; done; true"); err != nil {
		return err
	}
	out, err := m.run("systemctl is-active smtp-proxy.socket; systemctl show -P NRestarts smtp-proxy.service")
	if err != nil || out != "active\n0\n" {
		said, _ := m.run("journalctl -u smtp-proxy -u smtp-proxy.socket")
		return fmt.Errorf("socket and restarts: %q (%v)\n%s", out, err, said)
	}
	if err := m.settings("upstream smtp://127.0.0.1:1"); err != nil {
		return err
	}
	return until(time.Minute, "the port to serve", func() error {
		c, greeting, err := m.connect(25, 10*time.Second)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		if !strings.HasPrefix(greeting, "220") {
			return fmt.Errorf("port 25 says %q", greeting)
		}
		return nil
	})
}

// quarantine: a worker with the drop-in for MIMEDefang can write to its quarantine, also where the package has made none.
func quarantine(m *machine) error {
	const place = "/var/spool/MD-Quarantine"
	worker := "#!/bin/sh\nmkdir " + place + "/qdir-1 && touch " + place + "/qdir-1/HEADERS\nexec /usr/local/libexec/postern/filter-basic \"$@\"\n"
	if err := m.write("/usr/local/bin/worker", worker, 0o755); err != nil {
		return err
	}
	if err := m.write("/etc/postern/multiplexor.conf", "worker /usr/local/bin/worker\nlog-events yes\n", 0o644); err != nil {
		return err
	}
	if err := m.dropIn("mimedefang.conf", "multiplexor"); err != nil {
		return err
	}
	if _, err := m.run("id defang || useradd -r defang; rm -rf " + place + "; systemctl restart multiplexor"); err != nil {
		said, _ := m.run("journalctl -u multiplexor")
		return fmt.Errorf("%w\n%s", err, said)
	}
	return until(time.Minute, "the quarantine to be written", func() error {
		_, err := m.run("test -f " + place + "/qdir-1/HEADERS")
		return err
	})
}
