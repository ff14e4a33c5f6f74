package main

import (
	"io"
	"net"
	"os"
	"strings"
)

// copyEnv names, in the process that only copies, where it listens and whom it connects to.
const copyEnv = "POSTERN_BENCH_COPY"

// copier has a process of our own that copies bytes and does nothing else: what Go and its sockets cost any proxy.
func (b *bench) copier(in, out int, _ string) ([]string, error) {
	self, err := os.Executable()
	return []string{"env", copyEnv + "=" + address(in) + " " + address(out), self}, err
}

// copyAll is that process.
func copyAll() error {
	from, to, _ := strings.Cut(os.Getenv(copyEnv), " ")
	l, err := net.Listen("tcp4", from)
	if err != nil {
		return err
	}
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go copyOne(client, to)
	}
}

// copyOne copies to and fro until the server ends.
func copyOne(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp4", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		piecewise(server, client)
		server.(*net.TCPConn).CloseWrite()
	}()
	piecewise(client, server)
}

// piecewise copies through a buffer of 4 KiB: for lines that is cheaper than what io.Copy has the kernel do.
func piecewise(to io.Writer, from io.Reader) {
	io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 4<<10))
}
