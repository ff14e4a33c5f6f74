package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// relayok is a request that takes a worker, as MIMEDefang's milter makes it.
const relayok = "relayok 127.0.0.1 localhost 1234 127.0.0.1 25"

// original is Debian's multiplexor.
const original = "mimedefang-multiplexor"

// ours is the path of one of our programs.
func (b *bench) ours(program string) string { return filepath.Join(b.bin, program) }

// A server is a multiplexor that runs.
type server struct {
	pid     int
	socket  string // for requests
	notify  string // for listeners, if it has one
	workers int    // at most
}

// A poolKind says how a multiplexor is to be started.
type poolKind struct {
	program string
	worker  string // "": the one that answers at once
	filter  string // that the worker loads
	workers int    // as many run from the start on
	cold    bool   // or none
	queue   int
	notify  bool
}

// startServer starts a multiplexor, and all its workers.
func (b *bench) startServer(name string, kind poolKind) (*server, error) {
	dir, err := b.scratch(name)
	if err != nil {
		return nil, err
	}
	s := &server{socket: filepath.Join(dir, "sock"), workers: kind.workers}
	n := strconv.Itoa(kind.workers)
	args := []string{"-D", "-m", pick(kind.cold, "0", n), "-x", n, "-w", "1", "-z", dir, "-s", s.socket,
		"-f", pick(kind.worker == "", b.worker, kind.worker),
		"-r", "100000000", "-i", "100000", "-q", strconv.Itoa(kind.queue), "-c", "600"}
	if asRoot() {
		args = append(args, "-U", account)
	}
	if kind.filter != "" {
		args = append(args, "-F", kind.filter)
	}
	if kind.notify {
		s.notify = filepath.Join(dir, "notify")
		args = append(args, "-O", s.notify)
	}
	log := filepath.Join(b.dir, name+".log")
	if s.pid, err = b.children.start(log, kind.program, args...); err != nil {
		return nil, err
	}
	answers := func() bool {
		fd, err := connect(s.socket) // a connection that says nothing takes no worker
		if err != nil {
			return false
		}
		syscall.Close(fd)
		_, err = os.Stat(pick(kind.notify, s.notify, s.socket))
		return err == nil
	}
	if err := awaitChild(name, s.pid, log, answers); err != nil || kind.cold {
		return s, err
	}
	return s, s.fill()
}

// fill has all workers busy at once, so that all run.
func (s *server) fill() error {
	busy := load{socket: s.socket, request: "sleepok 500000", clients: s.workers, requests: s.workers}
	_, err := busy.run()
	return err
}

// measured runs a load and gives the multiplexor's CPU time for a request in
// microseconds.
func (s *server) measured(l load) (*outcome, float64, error) {
	l.socket = s.socket
	before := cpu(s.pid)
	o, err := l.run()
	if err != nil {
		return nil, 0, err
	}
	return o, micro(cpu(s.pid)-before) / float64(l.requests), nil
}
