package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// clientPatience is how long a client of ours waits for a reply.
const clientPatience = 30 * time.Second

// A client is an SMTP session that we lead ourselves.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

// greet connects and reads the greeting, which it gives.
func greet(port int) (*client, string, error) {
	conn, err := net.DialTimeout("tcp4", address(port), clientPatience)
	if err != nil {
		return nil, "", err
	}
	c := &client{conn, bufio.NewReaderSize(conn, 512)}
	line, err := c.reply()
	if err != nil {
		conn.Close()
		return nil, "", fmt.Errorf("greeting: %w", err)
	}
	return c, line, nil
}

// ask sends a command and gives the last line of the reply.
func (c *client) ask(command string) (string, error) {
	if _, err := c.conn.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	return c.reply()
}

// must sends a command and expects a code.
func (c *client) must(code, command string) error {
	line, err := c.ask(command)
	if err == nil && !strings.HasPrefix(line, code) {
		err = fmt.Errorf("answer %q", line)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

func (c *client) reply() (string, error) {
	c.conn.SetReadDeadline(time.Now().Add(clientPatience))
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(line), nil
		}
	}
}

// quit ends the session and waits until the server has closed it.
func (c *client) quit() error {
	defer c.conn.Close()
	if err := c.must("221", "QUIT"); err != nil {
		return err
	}
	if _, err := c.r.ReadByte(); err == nil {
		return fmt.Errorf("more after QUIT")
	}
	return nil
}
