package boot

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// client is an SMTP or POP3 client.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// connect connects to a port and gives the greeting.
func (m *machine) connect(port int) (*client, string, error) {
	conn, err := m.dial(port)
	if err != nil {
		return nil, "", err
	}
	c := &client{conn, bufio.NewReader(conn)}
	greeting, err := c.reply()
	return c, greeting, err
}

// reply reads a reply, and gives its last line.
func (c *client) reply() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(line), err
		}
	}
}

// say sends a line and wants a reply that begins as told.
func (c *client) say(line, want string) error {
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", line); err != nil {
		return err
	}
	got, err := c.reply()
	if err != nil || !strings.HasPrefix(got, want) {
		return fmt.Errorf("the reply to %q is %q (%v), want %s", firstLine(line), got, err, want)
	}
	return nil
}

// send sends a message with one field.
func (c *client) send(to, field string) error {
	for _, step := range [][2]string{{"EHLO client.example", "250"}, {"MAIL FROM:<a@client.example>", "250"}, {"RCPT TO:<" + to + ">", "250"},
		{"DATA", "354"}, {"From: a@client.example\r\n" + field + "\r\n\r\nText\r\n.", "250"}} {
		if err := c.say(step[0], step[1]); err != nil {
			return err
		}
	}
	return nil
}
