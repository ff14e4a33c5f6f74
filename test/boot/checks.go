package boot

import (
	"errors"
	"fmt"
	"strings"
)

// checks are all there is, those of set-ups with the sections of postern-setups(7) that they follow.
var checks = []check{
	// Those that wait longest.
	{"killed-proxy", killed("smtp-proxy")},
	{"killed-multiplexor", killed("multiplexor")},
	{"take-over-under-mail", takeOvers},
	{"events-after-installation", eventsAfterInstallation},
	{"events-without-units", eventsWithoutUnits},
	{"in-front-of-a-host", setup{section: "IN FRONT OF A SERVER ON ANOTHER HOST", before: otherHost, pairs: []string{"mail.example.org:25", "mail.example.org:10025"}, passes: filtered}.play},
	{"in-front-of-postfix", setup{section: "IN FRONT OF POSTFIX", before: withPostfix, passes: filtered}.play},
	{"in-front-of-exim", setup{section: "IN FRONT OF EXIM", before: withExim, passes: filtered}.play},
	{"in-front-of-opensmtpd", setup{section: "IN FRONT OF OPENSMTPD", before: withOpenSMTPD, passes: filtered}.play},
	{"in-front-of-exchange", setup{section: "IN FRONT OF EXCHANGE", before: likeExchange, pairs: []string{"exchange.example.org:25", "exchange.example.org:10025"}, passes: lateRefusals}.play},
	{"behind-postfix", setup{section: "BEHIND POSTFIX, BEFORE ITS QUEUE", before: withPostfix, passes: filtered, holder: "master"}.play},
	{"behind-postfix-after-queue", setup{section: "BEHIND POSTFIX, AFTER ITS QUEUE", before: withPostfix, passes: filtered, holder: "master"}.play},
	{"with-mimedefang", withMIMEDefang},
	{"with-scanners", scanners},
	{"pop-before-smtp", setup{section: "POP BEFORE SMTP", before: withDovecot, passes: popBeforeSMTP}.play},
	{"pop-before-smtp-by-journal", followJournal},
	{"behind-haproxy", behindHAProxy},
	{"certbot", certbot},
	{"exec-sendmail", execSendmail},
	{"make-install", makeInstall},
	{"wrong-settings", wrongSettings},
	{"broken-workers", brokenWorkers},
	{"quarantine", quarantine},
	{"reload", reloads},
	{"sockets-alone", socketsAlone},
	{"restart-under-mail", restarts},
	{"full-disk", fullDisk},
	{"upgrade", upgrade},
	{"removal", removal},
}

// settings writes those of smtp-proxy. What the machine of the test does beside it is no reason to refuse mail.
func (m *machine) settings(text string) error {
	return m.write("/etc/postern/smtp-proxy.conf", text+"\nmaxloadavg 0\n", 0o644)
}

// eventsAfterInstallation: somebody who may watch sees something, without a setting.
func eventsAfterInstallation(m *machine) error {
	if _, err := m.run("exec 2>&1; set -e; dpkg -P postern; dpkg -i " + thePackage + "; systemctl enable --now multiplexor; useradd -G postern bob; useradd eve"); err != nil {
		return err
	}
	out, err := m.run("runuser -u bob -- notify-cat -n 1")
	if err != nil || out == "" {
		return fmt.Errorf("a member of postern hears %q: %w", out, err)
	}
	return m.deaf("")
}

// deaf wants that eve, who is nobody special, may not listen.
func (m *machine) deaf(socket string) error {
	out, err := m.run("runuser -u eve -- notify-cat --once " + socket)
	if err == nil || !strings.Contains(out, "ermission denied") {
		return fmt.Errorf("anybody hears %q (%v)", out, err)
	}
	return nil
}

// eventsWithoutUnits: the samples as installed, and the accounts and directories that postern(7) makes, are all that it takes
// where no unit makes sockets.
func eventsWithoutUnits(m *machine) error {
	b, err := m.blocks("postern.7", ".Ss Accounts")
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
		if err := until("events of "+daemon, func() error {
			_, err := m.run("runuser -u bob -- timeout 10 notify-cat -n 1 " + socket)
			return err
		}); err != nil {
			log, _ := m.run("cat /tmp/start.log; ls -la /run/postern")
			return fmt.Errorf("%w: %s", err, log)
		}
		if err := m.deaf(socket); err != nil {
			return err
		}
	}
	return nil
}

// dropIn copies an example to where a service finds it, as the pages say.
func (m *machine) dropIn(example, service string) error {
	dir := "/etc/systemd/system/" + service + ".service.d"
	_, err := m.run("install -D -m 644 /usr/share/doc/postern/examples/" + example + " " + dir + "/" + example + " && systemctl daemon-reload")
	return err
}

// mailPasses sends a message to port 25 until it is taken, as some servers listen only a moment after their start, and waits
// until kate has got it, seen by a worker if it is filtered.
func (m *machine) mailPasses(word string, filtered bool) error {
	if err := until("mail to be taken", func() error {
		err := m.send("Subject: " + word)
		if err != nil && strings.Contains(err.Error(), `is "5`) {
			err = final{err}
		}
		return err
	}); err != nil {
		return err
	}
	return until("mail in the box", func() error {
		mail, err := m.run("cat /var/mail/kate /home/kate/Maildir/new/* 2>/dev/null; true")
		if err == nil && !strings.Contains(mail, "Subject: "+word) {
			err = errors.New("no such message")
		}
		if err == nil && filtered && !strings.Contains(mail, "X-Filtered-By") {
			err = errors.New("the message was not filtered")
		}
		return err
	})
}

// send sends kate a message, in a session of its own.
func (m *machine) send(field string) error {
	c, greeting, err := m.connect(25)
	if err != nil || !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("port 25 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	return c.send("kate@example.org", field)
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
		said, _ := m.journal("-u smtp-proxy -u smtp-proxy.socket")
		return fmt.Errorf("socket and restarts: %q (%v)\n%s", out, err, said)
	}
	if err := m.settings("upstream smtp://127.0.0.1:1"); err != nil {
		return err
	}
	return until("the port to serve", func() error {
		c, greeting, err := m.connect(25)
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
	worker := "#!/bin/sh\nmkdir " + place + "/qdir-1 && touch " + place + "/qdir-1/HEADERS /tmp/worker /var/tmp/worker\nexec /usr/libexec/postern/filter-basic \"$@\"\n"
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
		said, _ := m.journal("-u multiplexor")
		return fmt.Errorf("%w\n%s", err, said)
	}
	if err := until("the quarantine to be written", func() error {
		_, err := m.run("test -f " + place + "/qdir-1/HEADERS")
		return err
	}); err != nil {
		return err
	}
	// Its temporary directories are its own, and can be written to.
	out, err := m.run("test ! -e /tmp/worker && test ! -e /var/tmp/worker && find /tmp/systemd-private-*multiplexor* /var/tmp/systemd-private-*multiplexor* -name worker | wc -l")
	if err != nil || out != "2\n" {
		return fmt.Errorf("files of the worker in temporary directories of its own: %q (%v), want 2", out, err)
	}
	return nil
}
