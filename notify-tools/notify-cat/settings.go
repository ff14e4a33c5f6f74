package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/listener"
	"postern/notify-tools/tool"
)

type settings struct {
	Sockets []string `arg:"" optional:"" name:"socket" placeholder:"SPEC" help:"Notification sockets: paths, or inet:PORT, inet6:PORT, tcp:HOST:PORT, each with NAME= before it if wanted (${default})." default:"${socket}"`

	Types          string        `short:"t" default:"*" placeholder:"LETTERS" help:"Message types to print (all)."`
	Format         string        `short:"f" default:"line" complete:"raw line json" help:"raw, line, json, or a template as with --template (${default})."`
	Template       string        `placeholder:"TEXT" help:"Print each event by this Go template, such as '{{.Type}} {{.Free}}'."`
	Raw            bool          `help:"The same as --format raw."`
	Count          int           `short:"n" placeholder:"N" help:"Leave after N messages."`
	Timeout        time.Duration `placeholder:"TIME" help:"Leave with status 124 after this time, such as 30s."`
	Once           bool          `help:"Print the present state and leave."`
	Since          string        `placeholder:"N[/RUN]" help:"Begin with what came after message number N."`
	NoSnapshot     bool          `help:"Do not print the present state first."`
	NoReconnect    bool          `help:"Leave with status 1 when a connection is lost or cannot be made."`
	ShowConnection bool          `help:"Print lost and regained connections as events, not on standard error."`
	Color          string        `enum:"auto,always,never" default:"auto" help:"Colours: auto (on a terminal), always, never."`

	tool.Common

	sources  []listener.Source
	interest listener.Interest
	printer  *printer
}

// parse reads the command line. stdout is where --help goes.
func parse(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{}
	if err := tool.Parse(name, "Prints the events of daemons, a line each.", s, args, stdout); err != nil {
		return nil, err
	}
	return s, s.complete(stdout)
}

// complete checks the settings and derives what the program works with.
func (s *settings) complete(stdout io.Writer) error {
	for _, arg := range s.Sockets {
		src, err := listener.ParseSource(arg)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, src)
	}
	var err error
	if s.Types, err = tool.ParseLetters(s.Types); err != nil {
		return err
	}
	if s.Count < 0 || s.Timeout < 0 {
		return errors.New("a count or time below zero")
	}
	s.interest.Letters = s.Types
	if s.Since != "" {
		if err := s.since(); err != nil {
			return err
		}
	}
	return s.format(stdout)
}

func (s *settings) since() error {
	n, run, hasRun := strings.Cut(s.Since, "/")
	since, err := strconv.ParseUint(n, 10, 64)
	if err == nil && hasRun {
		s.interest.Run, err = strconv.ParseUint(run, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("since %q: not N or N/RUN", s.Since)
	}
	s.interest.Replay, s.interest.Since = true, since
	return nil
}

func (s *settings) format(stdout io.Writer) error {
	switch {
	case s.Raw:
		s.Format = "raw"
	case s.Template != "":
		s.Format = s.Template
	case s.Format == "raw", s.Format == "line", s.Format == "json", strings.Contains(s.Format, "{{"):
	default:
		return fmt.Errorf("format %q: not raw, line, json or a template", s.Format)
	}
	var err error
	s.printer, err = newPrinter(s.Format, len(s.sources) > 1, s.colored(stdout))
	if err != nil {
		return err
	}
	if strings.Contains(s.Format, ".Free") && !s.shown(notify.LetterFree) {
		s.interest.Letters += string(notify.LetterFree) // to know the number, not to print the message
	}
	return nil
}

// shown reports whether messages of this letter are printed.
func (s *settings) shown(letter byte) bool {
	return s.Types == "*" || strings.IndexByte(s.Types, letter) >= 0
}

func (s *settings) colored(stdout io.Writer) bool {
	if s.Color != "auto" {
		return s.Color == "always"
	}
	f, ok := stdout.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Mode()&os.ModeDevice != 0
}
