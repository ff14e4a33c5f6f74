package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pop3Load is POP3 sessions of many clients at a time: login, STAT, a message some times, QUIT.
type pop3Load struct {
	clients, sessions int
	retr              int // messages in each session
}

// run makes all sessions, and gives how many there were a second; with messages, how many of these.
func (l pop3Load) run(port int) (float64, error) {
	var next atomic.Int64
	errs := make([]error, l.clients)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for errs[i] == nil {
				n := next.Add(1)
				if n > int64(l.sessions) {
					return
				}
				errs[i] = l.session(port, int(n))
			}
		})
	}
	all.Wait()
	return float64(l.sessions*max(1, l.retr)) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func (l pop3Load) session(port, n int) error {
	c, err := logIn(port, pop3User(n))
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.ask("STAT"); err != nil {
		return err
	}
	for range l.retr {
		if err := c.retrieve(); err != nil {
			return err
		}
	}
	return c.ask("QUIT")
}

// A pop3Client is a POP3 session that we lead ourselves.
type pop3Client struct {
	conn net.Conn
	r    *bufio.Reader
}

// logIn connects and logs in.
func logIn(port int, user string) (*pop3Client, error) {
	conn, err := net.DialTimeout("tcp4", address(port), clientPatience)
	if err != nil {
		return nil, err
	}
	c := &pop3Client{conn, bufio.NewReaderSize(conn, 512)}
	if err = c.reply(); err == nil {
		if err = c.ask("USER " + user); err == nil {
			err = c.ask("PASS " + pop3Password)
		}
	}
	if err != nil {
		conn.Close()
	}
	return c, err
}

// ask sends a command and reads the first line of the reply.
func (c *pop3Client) ask(command string) error {
	if _, err := c.conn.Write([]byte(command + "\r\n")); err != nil {
		return err
	}
	if err := c.reply(); err != nil {
		return fmt.Errorf("%.4s: %w", command, err)
	}
	return nil
}

func (c *pop3Client) reply() error {
	c.conn.SetReadDeadline(time.Now().Add(clientPatience))
	line, err := c.r.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("answer %q", line)
	}
	return err
}

// retrieve reads the first message.
func (c *pop3Client) retrieve() error {
	if err := c.ask("RETR 1"); err != nil {
		return err
	}
	if c.r.Size() < 64<<10 {
		c.r = bufio.NewReaderSize(c.r, 64<<10)
	}
	total := 0
	for {
		line, err := c.r.ReadSlice('\n')
		total += len(line)
		switch {
		case err != nil:
			return fmt.Errorf("RETR: %w", err)
		case string(line) == ".\r\n" && total < pop3Message*9/10:
			return fmt.Errorf("RETR: %d bytes", total)
		case string(line) == ".\r\n":
			return nil
		}
	}
}

// logInMany opens sessions.
func logInMany(port, n int) ([]*pop3Client, error) {
	sessions := make([]*pop3Client, n)
	errs := make([]error, 16)
	var all sync.WaitGroup
	for part := range errs {
		all.Go(func() {
			for i := part; i < n && errs[part] == nil; i += len(errs) {
				var c *pop3Client
				if c, errs[part] = logIn(port, pop3User(i)); errs[part] == nil {
					sessions[i] = c
				}
			}
		})
	}
	all.Wait()
	opened := sessions[:0]
	for _, c := range sessions {
		if c != nil {
			opened = append(opened, c)
		}
	}
	return opened, errors.Join(errs...)
}

// A mailbox is a POP3 server that says yes to all but CAPA.
type mailbox struct {
	port int
	l    net.Listener
}

func startMailbox() (*mailbox, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveMailbox(c)
		}
	}()
	return &mailbox{l.Addr().(*net.TCPAddr).Port, l}, nil
}

func serveMailbox(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 128)
	for reply := "+OK\r\n"; ; {
		if _, err := c.Write([]byte(reply)); err != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "QUIT") {
			c.Write([]byte("+OK\r\n"))
			return
		}
		reply = "+OK 0 0\r\n"
	}
}

func (m *mailbox) close() { m.l.Close() }
