package test

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// saslBehind has a Postfix behind that asks a Dovecot who may send, and takes nothing from anybody else.
const saslBehind = `smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %s
smtpd_sasl_authenticated_header = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
`

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestAuthWithPostfixAndDovecot passes AUTH through to real servers, in all forms of its dialog.
func TestAuthWithPostfixAndDovecot(t *testing.T) {
	t.Parallel()
	sasl := testenv.StartDovecot(t)
	m := testenv.StartPostfix(t, fmt.Sprintf(saslBehind, sasl.Auth), "")
	d := startFrontDoor(t, "smtp://"+m.Address()).await()
	user, password := testenv.POP3User, testenv.POP3Password
	plain, wrong := b64("\x00"+user+"\x00"+password), b64("\x00"+user+"\x00not "+password)
	for _, tt := range []struct {
		name  string
		login func(c *smtpClient)
		taken bool
	}{
		{"nobody", func(*smtpClient) {}, false},
		{"PLAIN with initial response", func(c *smtpClient) { c.say("AUTH PLAIN "+plain+"\r\n", "235 2.7.0") }, true},
		{"PLAIN", func(c *smtpClient) {
			c.say("AUTH PLAIN\r\n", "334 ")
			c.say(plain+"\r\n", "235 2.7.0")
		}, true},
		{"LOGIN", func(c *smtpClient) {
			c.say("AUTH LOGIN\r\n", "334 VXNlcm5hbWU6")
			c.say(b64(user)+"\r\n", "334 UGFzc3dvcmQ6")
			c.say(b64(password)+"\r\n", "235 2.7.0")
		}, true},
		{"LOGIN with initial response", func(c *smtpClient) {
			c.say("auth login "+b64(user)+"\r\n", "334 UGFzc3dvcmQ6")
			c.say(b64(password)+"\r\n", "235 2.7.0")
		}, true},
		{"CRAM-MD5", func(c *smtpClient) {
			challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(c.say("AUTH CRAM-MD5\r\n", "334 ")[4:]))
			if err != nil {
				t.Fatal(err)
			}
			mac := hmac.New(md5.New, []byte(password))
			mac.Write(challenge)
			c.say(b64(user+" "+hex.EncodeToString(mac.Sum(nil)))+"\r\n", "235 2.7.0")
		}, true},
		{"wrong password", func(c *smtpClient) { c.say("AUTH PLAIN "+wrong+"\r\n", "535 5.7.8") }, false},
		{"wrong password, then the right one", func(c *smtpClient) {
			c.say("AUTH PLAIN "+wrong+"\r\n", "535 5.7.8")
			c.say("AUTH PLAIN "+plain+"\r\n", "235 2.7.0")
		}, true},
		{"cancelled", func(c *smtpClient) {
			c.say("AUTH PLAIN\r\n", "334 ")
			c.say("*\r\n", "501 5.7.0")
		}, false},
		{"cancelled, then again", func(c *smtpClient) {
			c.say("AUTH LOGIN\r\n", "334 ")
			c.say(b64(user)+"\r\n", "334 ")
			c.say("*\r\n", "501 5.7.0")
			c.say("AUTH PLAIN "+plain+"\r\n", "235 2.7.0")
		}, true},
		{"empty response", func(c *smtpClient) {
			c.say("AUTH LOGIN\r\n", "334 ")
			c.say("\r\n", "535 5.7.8")
		}, false},
		{"empty initial response", func(c *smtpClient) { c.say("AUTH PLAIN =\r\n", "535 5.7.8") }, false},
		{"no mechanism", func(c *smtpClient) { c.say("AUTH XYZZY\r\n", "504 5.5.4") }, false},
		{"twice", func(c *smtpClient) {
			c.say("AUTH PLAIN "+plain+"\r\n", "235 2.7.0")
			c.say("AUTH PLAIN "+plain+"\r\n", "503 5.5.1")
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := secureSMTP(t, d)
			tt.login(c)
			c.say("MAIL FROM:<ann@example.org>\r\n", "250")
			if !tt.taken {
				c.say("RCPT TO:<bob@example.net>\r\n", "554 5.7.1")
				return
			}
			mark := "mark " + tt.name + ";"
			c.say("RCPT TO:<bob@example.net>\r\n", "250")
			c.say("DATA\r\n", "354")
			c.say("Subject: x\r\n\r\n"+mark+"\r\n.\r\n", "250")
			if got := m.AwaitDelivered(mark); !strings.Contains(got, "(Authenticated sender: "+user+")") {
				t.Errorf("the server did not take it from %s:\n%s", user, got)
			}
			// Nobody else gets this connection, neither while its session lasts nor behind it.
			other := secureSMTP(t, d)
			other.say("MAIL FROM:<ann@example.org>\r\n", "250")
			other.say("RCPT TO:<bob@example.net>\r\n", "554 5.7.1")
			c.say("QUIT\r\n", "221")
			other = secureSMTP(t, d)
			other.say("MAIL FROM:<ann@example.org>\r\n", "250")
			other.say("RCPT TO:<bob@example.net>\r\n", "554 5.7.1")
		})
	}
	d.stop()
	for _, secret := range []string{plain, wrong, b64(password), password} {
		if strings.Contains(d.process.Output(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// secureSMTP connects within TLS, says EHLO, and sees that AUTH is offered.
func secureSMTP(t *testing.T, d *frontDoor) *smtpClient {
	t.Helper()
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: testenv.Patience}, "tcp4", fmt.Sprintf("127.0.0.1:%d", d.smtps), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	testenv.Patient(nc)
	c := newSMTPClient(t, nc)
	c.expect("220")
	c.say("EHLO client.example.org\r\n", "250")
	return c
}
