package boot

import (
	"errors"
	"fmt"
	"strings"
)

// likeExchange makes Postfix, at a port of its own, a host that behaves as Exchange does: connectors that know a client by
// its address alone and relay for none, TLS with a certificate of an authority of its own, 8BITMIME, CHUNKING and SIZE but
// no SMTPUTF8 and no XCLIENT, and recipients that are refused when the message is there.
const likeExchange = `set -e
echo 127.0.0.1 exchange.example.org >>/etc/hosts
mkdir -p /etc/exchange; cd /etc/exchange
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority -keyout ca.key -out /exchange-ca.cer 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=exchange.example.org -keyout key.pem -out request.pem 2>/dev/null
echo subjectAltName=DNS:exchange.example.org >names
openssl x509 -req -in request.pem -CA /exchange-ca.cer -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem 2>/dev/null
cd /
` + withPostfix + `
postconf -MX smtp/inet
service=127.0.0.1:10025/inet
postconf -M "$service=127.0.0.1:10025 inet n - y - - smtpd"
postconf -e 'smtpd_restriction_classes=late' 'late=check_recipient_access inline:{{nobody@example.org = 550 5.1.10 RESOLVER.ADR.RecipientNotFound}}'
postconf -P $service/smtputf8_enable=no $service/local_recipient_maps= \
	$service/smtpd_relay_restrictions=reject_unauth_destination $service/smtpd_client_restrictions=permit_mynetworks,reject \
	$service/smtpd_tls_security_level=encrypt $service/smtpd_tls_received_header=yes \
	$service/smtpd_tls_cert_file=/etc/exchange/cert.pem $service/smtpd_tls_key_file=/etc/exchange/key.pem \
	$service/smtpd_end_of_data_restrictions=late
systemctl start postfix`

// lateRefusals: mail goes over TLS to a server that is like Exchange, in each form that it takes; what it refuses at the
// end is refused to the client, and what it has not is not offered.
func lateRefusals(m *machine, word string) error {
	if err := m.mailPasses(word, true); err != nil {
		return err
	}
	if mail, err := m.run("cat /var/mail/kate"); err != nil || !strings.Contains(mail, "(using TLS") {
		return fmt.Errorf("mail came without TLS (%v):\n%s", err, mail)
	}
	c, greeting, err := m.connect(25)
	if err != nil || !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("port 25 says %q (%v)", greeting, err)
	}
	defer c.conn.Close()
	if err := c.send("nobody@example.org", "Subject: "+word); err == nil || !strings.Contains(err.Error(), `is "550 `) || !strings.Contains(err.Error(), "RecipientNotFound") {
		return fmt.Errorf("a recipient that is refused at the end: %v, want the server's 550", err)
	}
	content := "Subject: chunk " + word + "\r\n\r\nGr\xfc\xdfe\r\n"
	if err := errors.Join(
		c.say("MAIL FROM:<a@client.example> SMTPUTF8", "5"),
		c.say("MAIL FROM:<a@client.example> BODY=8BITMIME SIZE=100", "250"), c.say("RCPT TO:<a@elsewhere.example>", "554"), c.say("RCPT TO:<kate@example.org>", "250"),
		c.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), strings.TrimSuffix(content, "\r\n")), "250"),
	); err != nil {
		return err
	}
	return until("what came in a chunk", func() error {
		_, err := m.run("grep -q '^Subject: chunk " + word + "' /var/mail/kate")
		return err
	})
}
