package test

import (
	"fmt"
	"testing"

	"postern/internal/testenv"
)

// TestIdleClientsAndAFewProcesses has more clients idle behind RCPT than a real Postfix has processes: whoever comes then is
// served at once, and so is each of the others when it goes on.
func TestIdleClientsAndAFewProcesses(t *testing.T) {
	t.Parallel()
	m := testenv.StartPostfix(t, "default_process_limit = 2\n", "")
	address, _ := startProxyTo(t, "smtp://"+m.Address(), "--upstream-idle", "100ms", "--connect-timeout", "1m")
	deliver := func(c *smtpClient, mark string) {
		c.say("DATA\r\n", "354")
		c.say("Subject: "+mark+"\r\n\r\ntext\r\n.\r\n", "250")
		m.AwaitDelivered("Subject: " + mark)
	}
	var idle []*smtpClient
	for i := range 6 {
		c := dialSMTP(t, address)
		c.say(fmt.Sprintf("MAIL FROM:<ann%d@example.org>\r\n", i), "250")
		c.say("RCPT TO:<bob@example.net>\r\n", "250")
		idle = append(idle, c)
	}
	c := dialSMTP(t, address)
	c.say("MAIL FROM:<eve@example.org>\r\n", "250")
	c.say("RCPT TO:<bob@example.net>\r\n", "250")
	deliver(c, "another")
	for i, c := range idle {
		deliver(c, fmt.Sprintf("idle-%d", i))
	}
}
