package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
)

// output is where dialogs and events meet: each writes whole lines.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) printf(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.w, format+"\n", args...)
}

// heading starts a part of the show.
func (o *output) heading(text string) {
	o.printf("\n%s\n%s", text, strings.Repeat("-", len(text)))
}

// lines is a writer that prints each whole line after a prefix and counts
// them.
type lines struct {
	out    *output
	prefix string

	mu    sync.Mutex
	rest  []byte
	count int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.out.printf("%s%s", l.prefix, line)
		l.count++
		l.rest = rest
	}
}

// printed says how many lines there were so far.
func (l *lines) printed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}
