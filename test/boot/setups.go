package boot

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What the sections take for granted, beside a user who gets mail.
const (
	withPostfix = "systemctl enable postfix 2>&1"
	// Postfix at a port of its own is the other host.
	otherHost = withPostfix + "\necho 127.0.0.1 mail.example.org >>/etc/hosts; postconf -MX smtp/inet; postconf -M '127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd'; systemctl start postfix"
	withExim  = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-download exim4-daemon-light >/dev/null 2>&1; systemctl enable exim4 2>&1\n" +
		"sed -i \"s/^dc_other_hostnames=.*/dc_other_hostnames='example.org'/\" /etc/exim4/update-exim4.conf.conf"
	withOpenSMTPD = "DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-download opensmtpd >/dev/null 2>&1; systemctl enable opensmtpd 2>&1"
	// A signature of our own, as there are no others without a network; nothing is looked up there either.
	withScanners = `DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-download clamav-daemon rspamd spamd >/dev/null 2>&1
mkdir -p /etc/systemd/system/clamav-daemon.service.d /etc/systemd/system/clamav-daemon.socket.d
printf '[Unit]\nConditionPathExistsGlob=\n' | tee /etc/systemd/system/clamav-daemon.service.d/own.conf >/etc/systemd/system/clamav-daemon.socket.d/own.conf
echo "Postern.Test:0:*:$(printf POSTERN-VIRUS | od -An -tx1 | tr -d ' \n')" >/var/lib/clamav/own.ndb; chown clamav /var/lib/clamav/own.ndb
echo 'dns { nameserver = "127.0.0.1"; timeout = 0.1s; retransmits = 1; }' >/etc/rspamd/override.d/options.inc
echo 'dns_available no' >>/etc/spamassassin/local.cf
systemctl daemon-reload; systemctl stop clamav-freshclam; systemctl enable --now clamav-daemon rspamd spamd 2>&1`
	withDovecot = withPostfix + "\nsystemctl enable dovecot 2>&1; echo kate:secret | chpasswd; echo 'mail_location = mbox:~/mail:INBOX=/var/mail/%u' >/etc/dovecot/conf.d/99-boxes.conf; mkdir -p /home/kate/mail; chown kate /home/kate/mail"
)

// setup is a section of postern-setups(7), played as it stands there.
type setup struct {
	section string
	before  string                       // what it takes for granted
	pairs   []string                     // what is called otherwise in the machine, as for strings.NewReplacer
	passes  func(*machine, string) error // gets a word for what is sent
	holder  string                       // who has port 25; "" for the proxy
}

// filtered wants a message to be delivered, and to have been filtered.
func filtered(m *machine, word string) error { return m.mailPasses(word, true) }

// play follows the section, and wants mail to pass, with port 25 held by the right program, also after a reboot.
func (s setup) play(m *machine) error {
	if err := m.follow(s); err != nil {
		return err
	}
	return s.stands(m)
}

// stands is what play wants, once the section was followed.
func (s setup) stands(m *machine) error {
	if err := s.passes(m, "before"); err != nil {
		return err
	}
	if err := m.reboot(); err != nil {
		return err
	}
	if err := s.passes(m, "after"); err != nil {
		return fmt.Errorf("after the reboot: %w", err)
	}
	holder := s.holder
	if holder == "" {
		holder = "smtp-proxy"
	}
	out, err := m.run("ss -Hltnp sport = 25")
	if err != nil || !strings.Contains(out, holder) {
		return fmt.Errorf("port 25 is held by %q (%v), want %s", out, err, holder)
	}
	return nil
}

// follow does what a section says.
func (m *machine) follow(s setup) error {
	b, err := m.blocks("postern-setups.7", ".Sh "+s.section)
	if err != nil {
		return err
	}
	// What the machine does beside it is no reason to refuse mail.
	script := "id kate >/dev/null 2>&1 || useradd -m kate\n" + s.before + "\nset -e\n" + strings.NewReplacer(s.pairs...).Replace(strings.Join(b, "")) +
		"grep -q ^maxloadavg /etc/postern/smtp-proxy.conf || echo maxloadavg 0 >>/etc/postern/smtp-proxy.conf; systemctl reload smtp-proxy\n"
	_, err = m.run("exec 2>&1\n" + script)
	return err
}

// scanners look at the mail: what they find nothing in passes, and what one of them knows does not.
func scanners(m *machine) error {
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	return setup{section: "WITH CLAMD, RSPAMD AND SPAMD", before: withScanners, passes: func(m *machine, word string) error {
		// Spam has less of a header.
		message := "To: kate@example.org\r\nDate: " + time.Now().Format(time.RFC1123Z) + "\r\nMessage-ID: <" + word + "@client.example>\r\nSubject: "
		if err := until("mail to be taken", func() error { return m.send(message + word) }); err != nil {
			return err
		}
		if err := until("mail in the box", func() error {
			mail, err := m.run("cat /var/mail/kate")
			for _, text := range []string{"Subject: " + word, "clamd=clean", "rspamd=", "spamd="} {
				if err == nil && !strings.Contains(mail, text) {
					err = fmt.Errorf("no %q in\n%s", text, mail)
				}
			}
			return err
		}); err != nil {
			return err
		}
		if err := m.send(message + "POSTERN-VIRUS"); err == nil || !strings.Contains(err.Error(), "554 5.7.1") {
			return fmt.Errorf("a message that clamd knows: %v", err)
		}
		return nil
	}}.play(m)
}

// withMIMEDefang: the filter of the package mimedefang looks at the mail, in front of Postfix.
func withMIMEDefang(m *machine) error {
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	return setup{section: "WITH A FILTER WRITTEN FOR MIMEDEFANG", passes: func(m *machine, word string) error {
		if err := until("a worker", func() error {
			_, err := m.run("pgrep -f mimedefang.pl")
			return err
		}); err != nil {
			return err
		}
		if err := m.mailPasses(word, false); err != nil {
			return err
		}
		if out, err := m.run("mx-ctrl msgs"); err != nil || strings.TrimSpace(out) == "0" {
			return fmt.Errorf("messages filtered: %q (%v)", out, err)
		}
		return nil
	}}.play(m)
}

// followJournal: without the proxy, a login that Dovecot has logged in the journal is worth the same, a moment later.
func followJournal(m *machine) error {
	s := setup{section: "POP BEFORE SMTP", before: withDovecot, passes: func(m *machine, word string) error {
		if err := fetchMail(m); err != nil {
			return err
		}
		if err := until("a stamp", func() error { return relays(m, "250") }); err != nil {
			return fmt.Errorf("after POP: %w", err)
		}
		return m.mailPasses(word, false)
	}}
	if err := m.follow(s); err != nil {
		return err
	}
	if _, err := m.run("exec 2>&1; set -e; systemctl disable --now pop3-stamp.socket pop3-stamp.service; rm /etc/dovecot/local.conf; systemctl restart dovecot; " +
		"systemctl enable --now pop3-stamp-follow.service"); err != nil {
		return err
	}
	if err := s.stands(m); err != nil {
		return err
	}
	if out, err := m.run("pop3-stamp list"); err != nil || !strings.Contains(out, "127.0.0.1") || !strings.Contains(out, "kate") {
		return fmt.Errorf("stamps: %q (%v)", out, err)
	}
	return nil
}

// popBeforeSMTP: who has fetched mail may relay, and nobody else may.
func popBeforeSMTP(m *machine, word string) error {
	if err := fetchMail(m); err != nil {
		return err
	}
	if err := relays(m, "250"); err != nil {
		return fmt.Errorf("after POP: %w", err)
	}
	return m.mailPasses(word, false)
}

// fetchMail has somebody who may not relay fetch mail.
func fetchMail(m *machine) error {
	if err := relays(m, "5"); err != nil {
		return fmt.Errorf("before POP: %w", err)
	}
	c, greeting, err := m.connect(110)
	if err != nil || !strings.HasPrefix(greeting, "+OK") {
		return fmt.Errorf("port 110 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	return errors.Join(c.say("USER kate", "+OK"), c.say("PASS secret", "+OK"), c.say("QUIT", "+OK"))
}

// relays wants a reply to a recipient elsewhere.
func relays(m *machine, want string) error {
	c, greeting, err := m.connect(25)
	if err != nil || !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("port 25 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	return errors.Join(c.say("EHLO client.example", "250"), c.say("MAIL FROM:<kate@example.org>", "250"), c.say("RCPT TO:<a@elsewhere.example>", want))
}

// behindHAProxy: two gateways of one host, at two ports; mail passes while one of them is down.
func behindHAProxy(m *machine) error {
	if err := m.follow(setup{section: "IN FRONT OF A SERVER ON ANOTHER HOST", before: otherHost, pairs: []string{"mail.example.org:25", "mail.example.org:10025"}}); err != nil {
		return err
	}
	if _, err := m.run("systemctl enable haproxy 2>&1; " +
		"systemd-run -q -u second -p User=postern smtp-proxy --spool-group postern-filter --smtp inet:2526 --proxy-from 127.0.0.1 --drain-timeout 3s 2>&1"); err != nil {
		return err
	}
	if err := m.follow(setup{section: "TWO GATEWAYS BEHIND HAPROXY", pairs: []string{"192.0.2.10", "127.0.0.1", "192.0.2.11:", "127.0.0.1:", "192.0.2.12:2525", "127.0.0.1:2526"}}); err != nil {
		return err
	}
	for _, down := range []string{"smtp-proxy", "second"} {
		if _, err := m.run("systemctl stop " + down); err != nil {
			return err
		}
		if err := m.mailPasses("without-"+down, true); err != nil {
			return err
		}
		if down == "smtp-proxy" {
			if _, err := m.run("systemctl start smtp-proxy"); err != nil {
				return err
			}
		}
	}
	if err := m.reboot(); err != nil {
		return err
	}
	return m.mailPasses("after", true)
}

// certbot: the hook gives the proxy its certificate, and the next one without a restart. What certbot does is done by hand.
func certbot(m *machine) error {
	const lineage = "/etc/letsencrypt/live/mail.example.org"
	renew := func(name string) string {
		return "mkdir -p " + lineage + "; openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=" + name + " -keyout " + lineage + "/privkey.pem -out " + lineage +
			"/fullchain.pem 2>/dev/null; RENEWED_LINEAGE=" + lineage + " /etc/letsencrypt/renewal-hooks/deploy/postern"
	}
	if err := m.follow(setup{section: "IN FRONT OF POSTFIX", before: withPostfix}); err != nil {
		return err
	}
	const command = "certbot certonly --standalone -n --agree-tos -m you@example.org -d mail.example.org"
	if err := m.follow(setup{section: "CERTIFICATES BY CERTBOT", pairs: []string{command, renew("first")}}); err != nil {
		return err
	}
	shown := func(want string) error {
		out, err := m.run("openssl s_client -connect 127.0.0.1:25 -starttls smtp </dev/null 2>&1 | grep subject")
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("the certificate is %q (%v), want %s", out, err, want)
		}
		return nil
	}
	if err := shown("first"); err != nil {
		return err
	}
	before, err := m.run("systemctl show -P MainPID smtp-proxy")
	if err != nil {
		return err
	}
	if _, err := m.run(renew("second")); err != nil {
		return err
	}
	if err := shown("second"); err != nil {
		return err
	}
	if after, err := m.run("systemctl show -P MainPID smtp-proxy"); err != nil || after != before {
		return fmt.Errorf("the proxy was restarted (%v)", err)
	}
	if err := m.mailPasses("tls", true); err != nil {
		return err
	}
	if err := m.reboot(); err != nil {
		return err
	}
	if err := m.mailPasses("after", true); err != nil {
		return err
	}
	return shown("second")
}

// execSendmail hands mail to the sendmail of this host: without the drop-in with a warning, with it for good.
func execSendmail(m *machine) error {
	if err := m.settings("smtp inet_any:25\nupstream exec:/usr/sbin/sendmail -bs\nrefuse-relay yes\nlocal-domains example.org\n"); err != nil {
		return err
	}
	if _, err := m.run("systemctl start smtp-proxy.socket smtp-proxy"); err != nil {
		return err
	}
	if said, err := m.journal("-u smtp-proxy"); err != nil || !strings.Contains(said, "no_new_privs") {
		return fmt.Errorf("without the drop-in nobody is warned (%v):\n%s", err, said)
	}
	return setup{section: "MAIL HANDED TO SENDMAIL", before: "systemctl stop smtp-proxy.socket smtp-proxy; systemctl start postfix; " + withPostfix,
		passes: func(m *machine, word string) error { return m.mailPasses(word, false) }}.play(m)
}
