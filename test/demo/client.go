package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// replyWithin bounds each step of a dialog.
const replyWithin = 30 * time.Second

// client is one SMTP dialog, shown line by line on out if there is one.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *output
}

func dial(address string, out *output) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, replyWithin)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn), out}, nil
}

func (c *client) close() { c.conn.Close() }

func (c *client) show(who, line string) {
	if c.out != nil {
		c.out.printf("  %s: %s", who, line)
	}
}

// reply reads one reply, of one line or several, and gives its code and its
// text, the lines of which are shown as one.
func (c *client) reply() (code int, text string, err error) {
	c.conn.SetReadDeadline(time.Now().Add(replyWithin))
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return 0, "", fmt.Errorf("read reply: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 {
			return 0, "", fmt.Errorf("read reply: short line %q", line)
		}
		if code, err = strconv.Atoi(line[:3]); err != nil {
			return 0, "", fmt.Errorf("read reply: no code in %q", line)
		}
		lines = append(lines, line[4:])
		if line[3] != '-' {
			text = fmt.Sprintf("%d %s", code, strings.Join(lines, " | "))
			c.show("S", text)
			return code, text, nil
		}
	}
}

// command sends a line and reads the reply.
func (c *client) command(line string) (int, string, error) {
	c.show("C", line)
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", line); err != nil {
		return 0, "", fmt.Errorf("send %s: %w", line, err)
	}
	return c.reply()
}

// send plays one whole dialog and gives the reply to the message, or the first
// reply that refused something.
func send(address string, out *output, from, to, message string) (code int, text string, err error) {
	c, err := dial(address, out)
	if err != nil {
		return 0, "", err
	}
	defer c.close()
	if code, text, err = c.reply(); err != nil || code != 220 {
		return code, text, err
	}
	for _, line := range []string{"EHLO client.example.org", "MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		if code, text, err = c.command(line); err != nil || code/100 > 3 {
			return code, text, err
		}
	}
	c.show("C", fmt.Sprintf("(the message, %d lines) .", strings.Count(message, "\n")))
	wire := strings.ReplaceAll(strings.ReplaceAll("\n"+message, "\n.", "\n.."), "\n", "\r\n")[2:]
	if _, err := fmt.Fprintf(c.conn, "%s.\r\n", wire); err != nil {
		return 0, "", fmt.Errorf("send message: %w", err)
	}
	if code, text, err = c.reply(); err != nil {
		return code, text, err
	}
	_, _, err = c.command("QUIT")
	return code, text, err
}
