package main

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// statLog writes statistics lines to a file, to the log, or both. Its file is
// written outside the loop.
type statLog struct {
	path  string // "" = no file
	mode  os.FileMode
	flush bool // after each line
	toLog bool
	log   *logQueue

	reopening atomic.Bool // work to do that waits

	// These belong to the work queue's goroutine after open.
	file   *os.File
	buf    []byte
	failed bool // the last write has, and that is logged
}

const (
	maxStatLine = 1023
	statBlock   = 4096 // bytes held back without --stats-flush
)

// open opens the file for appending. It may be a FIFO that somebody reads; without a reader that is an error, and
// nothing waits for one.
func (s *statLog) open() error {
	if s.path == "" {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOCTTY, s.mode)
	if errors.Is(err, syscall.ENXIO) {
		err = errors.New("it is a FIFO that nobody reads, or a socket")
	}
	if err != nil {
		return fmt.Errorf("open the statistics file: %w", err)
	}
	s.file = f
	return nil
}

// Add writes a line for an event.
func (s *statLog) Add(event string, worker, running, busy int, extra string) {
	now := time.Now()
	line := fmt.Sprintf("%d.%03d %s worker=%d nworkers=%d nbusy=%d", now.Unix(), now.Nanosecond()/1e6, event, worker, running, busy)
	if extra != "" {
		line += " " + oneLine(extra)
	}
	if s.toLog {
		s.log.AddEach(levelInfo, "stats "+line[:min(len(line), maxStatLine)])
	}
	if s.path == "" {
		return
	}
	line = now.Format("02/01/2006:15:04:05 ") + line
	line = line[:min(len(line), maxStatLine)] + "\n"
	s.log.work.add(func() {
		if n := s.log.work.dropped.Swap(0); n > 0 {
			s.log.Add(levelWarning, fmt.Sprintf("%d statistics lines were dropped: the disk is too slow", n))
		}
		s.buf = append(s.buf, line...)
		if s.flush || len(s.buf) >= statBlock {
			s.write()
		}
	})
}

// write is what the work queue's goroutine does with the lines at hand. Lines that
// cannot be written are lost; the log says so once, until one is written again.
func (s *statLog) write() {
	lines := s.buf
	s.buf = s.buf[:0]
	if s.file == nil || len(lines) == 0 {
		return
	}
	_, err := s.file.Write(lines)
	if err != nil && !s.failed {
		s.log.Add(levelError, fmt.Sprintf("Could not write stats file %s: %v", s.path, rootCause(err)))
	}
	s.failed = err != nil
}

// reopen closes the file, which may have been renamed, and opens it again. That is
// never forgotten, however much there is to do before.
func (s *statLog) reopen() {
	if s.reopening.Swap(true) {
		return
	}
	s.log.work.must(func() {
		s.reopening.Store(false)
		s.write()
		s.closeFile()
		s.failed = false
		s.openOrLog()
	})
}

// openOrLog opens the file. Without it the multiplexor goes on.
func (s *statLog) openOrLog() {
	if err := s.open(); err != nil {
		s.log.Add(levelError, fmt.Sprintf("Could not open stats file %s: %v", s.path, rootCause(err)))
	}
}

func (s *statLog) closeFile() {
	if s.file != nil {
		// What was written is written: a failing close tells nothing more.
		_ = s.file.Close()
		s.file = nil
	}
}

// Close writes out what is held back. It is called when the work is done.
func (s *statLog) Close() {
	s.write()
	s.closeFile()
}
