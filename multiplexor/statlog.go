package main

import (
	"fmt"
	"os"
	"time"
)

// statLog writes statistics lines to a file, to the log, or both. Its file is
// written outside the loop.
type statLog struct {
	path    string // "" = no file
	mode    os.FileMode
	flush   bool     // after each line
	journal *journal // nil = not to the log
	errands *errands

	file *os.File // of the errands' goroutine, after open
	buf  []byte
}

const (
	maxStatLine = 1023
	statBlock   = 4096 // bytes held back without --stats-flush
)

// open opens the file for appending.
func (s *statLog) open() error {
	if s.path == "" {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, s.mode)
	if err != nil {
		return fmt.Errorf("open the statistics file: %w", err)
	}
	s.file = f
	return nil
}

// add writes a line for an event.
func (s *statLog) add(event string, worker, running, busy int, extra string) {
	now := time.Now()
	line := fmt.Sprintf("%d.%03d %s worker=%d nworkers=%d nbusy=%d", now.Unix(), now.Nanosecond()/1e6, event, worker, running, busy)
	if extra != "" {
		line += " " + oneLine(extra)
	}
	if s.journal != nil {
		s.journal.add(levelInfo, "stats "+line[:min(len(line), maxStatLine)])
	}
	if s.path == "" {
		return
	}
	line = now.Format("02/01/2006:15:04:05 ") + line
	line = line[:min(len(line), maxStatLine)] + "\n"
	s.errands.add(func() {
		s.buf = append(s.buf, line...)
		if s.flush || len(s.buf) >= statBlock {
			s.write()
		}
	})
}

// write is what the errands' goroutine does with the lines at hand.
func (s *statLog) write() {
	if s.file == nil {
		s.buf = s.buf[:0]
		return
	}
	if _, err := s.file.Write(s.buf); err != nil && s.journal != nil {
		s.journal.add(levelError, fmt.Sprintf("Could not write stats file %s: %v", s.path, err))
	}
	s.buf = s.buf[:0]
}

// reopen closes the file, which may have been renamed, and opens it again.
func (s *statLog) reopen(report func(error)) {
	s.errands.add(func() {
		s.write()
		s.closeFile()
		if err := s.open(); err != nil {
			report(err)
		}
	})
}

func (s *statLog) closeFile() {
	if s.file != nil {
		// What was written is written: a failing close tells nothing more.
		_ = s.file.Close()
		s.file = nil
	}
}

// Close writes out what is held back. It is called when the errands are done.
func (s *statLog) Close() {
	s.write()
	s.closeFile()
}
