package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/notify/listener"
	"postern/notify-tools/tool"
)

type settings struct {
	Socket string `arg:"" optional:"" default:"${socket}" placeholder:"SPEC" help:"Notification socket: a path, or inet:PORT, inet6:PORT, tcp:HOST:PORT (${default})."`

	// On and Undo are taken off the command line before kong sees it: their
	// values go up to a lone semicolon.
	On   []string `placeholder:"LETTERS COMMAND ... ';'" help:"Run this command for messages of these types. May be given several times."`
	Undo []string `placeholder:"COMMAND ... ';'" help:"Run this command when the daemon stays away, and at the end."`

	DeadMan     time.Duration `default:"30s" placeholder:"TIME" help:"How long the daemon may be away until --undo runs (${default})."`
	MinHold     time.Duration `placeholder:"TIME" help:"The least time from one run to the next."`
	Debounce    time.Duration `placeholder:"TIME" help:"Run only when nothing has changed for this time."`
	Repeat      time.Duration `placeholder:"TIME" help:"Run again every so often as long as a state lasts."`
	MaxParallel int           `default:"1" placeholder:"N" help:"How many runs for one --on may overlap (${default}); of states never more than one."`
	RunTimeout  time.Duration `default:"60s" placeholder:"TIME" help:"End a run that takes longer (${default})."`
	Backlog     int           `default:"1000" placeholder:"N" help:"How many events may wait for one --on (${default})."`
	NoReconnect bool          `help:"Leave with status 1, after --undo, when the connection is lost or cannot be made."`
	Verbose     bool          `short:"v" help:"Say on standard error what is run."`

	tool.Common

	rules  []*rule
	undo   []string
	source listener.Source
}

// A rule is one --on.
type rule struct {
	letters string
	command []string
}

// parse reads the command line. stdout is where --help goes.
func parse(args []string, stdout io.Writer) (*settings, error) {
	s := &settings{}
	rest, err := s.takeCommands(args)
	if err != nil {
		return nil, err
	}
	if err := tool.Parse(name, "Runs commands when a daemon announces events.", s, rest, stdout); err != nil {
		return nil, err
	}
	return s, s.complete()
}

// takeCommands takes each --on and --undo with its command off the command
// line and returns the rest.
func (s *settings) takeCommands(args []string) (rest []string, err error) {
	for i := 0; i < len(args); i++ {
		flag, value, inline := strings.Cut(args[i], "=")
		if args[i] == "--" {
			return append(rest, args[i:]...), nil
		}
		if flag != "--on" && args[i] != "--undo" {
			rest = append(rest, args[i])
			continue
		}
		words := args[i+1:]
		if inline {
			words = append([]string{value}, words...)
		}
		end := -1
		for j, w := range words {
			if w == ";" {
				end = j
				break
			}
		}
		if end < 0 {
			return nil, fmt.Errorf("%s: no ';' ends the command", flag)
		}
		if err := s.addCommand(flag, words[:end]); err != nil {
			return nil, err
		}
		i += end + 1
		if inline {
			i--
		}
	}
	return rest, nil
}

func (s *settings) addCommand(flag string, words []string) error {
	command := words
	if flag == "--on" {
		if len(words) == 0 {
			return errors.New("--on: no types")
		}
		letters, err := tool.ParseLetters(words[0])
		if err != nil {
			return fmt.Errorf("--on: %w", err)
		}
		command = words[1:]
		s.rules = append(s.rules, &rule{letters, command})
	} else if s.undo != nil {
		return errors.New("--undo: given twice")
	} else {
		s.undo = command
	}
	if len(command) == 0 {
		return fmt.Errorf("%s: no command", flag)
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return checkShell(command)
}

// checkShell refuses a placeholder in the text of a shell script: an event's
// text would become part of the script.
func checkShell(command []string) error {
	switch filepath.Base(command[0]) {
	case "sh", "ash", "bash", "dash", "ksh", "zsh":
	default:
		return nil
	}
	for i := 1; i+1 < len(command); i++ {
		if script := command[i+1]; strings.HasPrefix(command[i], "-") && strings.HasSuffix(command[i], "c") && placeholder.MatchString(script) {
			return fmt.Errorf("%s %s %q: a placeholder in a shell script lets events write the script; "+
				"use \"$POSTERN_EVENT\" or give it as an argument", command[0], command[i], script)
		}
	}
	return nil
}

func (s *settings) complete() error {
	if len(s.rules) == 0 {
		return errors.New("no --on")
	}
	if s.MaxParallel < 1 || s.Backlog < 1 {
		return errors.New("--max-parallel or --backlog below one")
	}
	for _, d := range []time.Duration{s.DeadMan, s.MinHold, s.Debounce, s.Repeat, s.RunTimeout} {
		if d < 0 {
			return errors.New("a time below zero")
		}
	}
	var err error
	s.source, err = listener.ParseSource(s.Socket)
	return err
}

// letters is what to subscribe to: what the rules are for, and F, Y and Z to
// know how many are free.
func (s *settings) letters() string {
	set := "FYZ"
	for _, r := range s.rules {
		if r.letters == "*" {
			return "*"
		}
		set += r.letters
	}
	return set
}

func (r *rule) wants(letter byte) bool {
	return r.letters == "*" || strings.IndexByte(r.letters, letter) >= 0
}
