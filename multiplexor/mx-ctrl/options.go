package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"postern/internal/completion"
	"postern/internal/sockspec"
	"postern/internal/version"
)

// The names under which the program knows itself.
const (
	ownName      = "mx-ctrl"
	originalName = "md-mx-ctrl"
)

// settings is the command line under the program's own name.
type settings struct {
	Socket      string        `short:"s" placeholder:"SPEC" default:"/run/postern/multiplexor.sock" help:"The multiplexor's request or status socket (${default}). A path, or inet:PORT, inet6:PORT, tcp:HOST:PORT."`
	Interactive bool          `short:"i" help:"Read commands from standard input, one a line, and send them as they are."`
	Timeout     time.Duration `placeholder:"TIME" default:"0s" help:"Give up a request after this time, such as 10s; 0 waits as long as the multiplexor does (${default})."`
	Interval    time.Duration `placeholder:"TIME" default:"2s" help:"How often top asks (${default})."`
	JSON        bool          `name:"json" help:"With top: print once, as JSON, all that is known of the workers."`
	Wait        bool          `help:"With reread: wait for what becomes of it; the exit status tells."`
	Version     bool          `help:"Print the version."`
	Help        bool          `short:"h" help:"Show this help and leave."`
	Words       []string      `arg:"" optional:"" name:"command" passthrough:"partial" help:"What to ask, see below."`

	top    bool // the command is top
	reread bool // it is reread --wait
	spec   sockspec.Spec
}

// minInterval keeps top from loading the multiplexor it looks at.
const minInterval = 100 * time.Millisecond

// commandsHelp lists the commands under the flags.
const commandsHelp = `
Commands:
  status, barstatus, jsonstatus, rawstatus
  load, load-relayok, load-senderok, load-recipok; each also as rawload...
  hload, hload-relayok, hload-senderok, hload-recipok; each also as rawhload...
  load1 N, rawload1 N, jsonload1 N    the last N seconds, 10 to 600
  reread, msgs, free, health, version, help, workers, busyworkers, workerinfo N, histo
  reread --wait                       until the new rules are in force, or have failed
  top                                 live view of the workers; q ends, space pauses
Anything else goes to a worker; the reply is shown percent-decoded.
`

// helpAsked is the error of parse when there is nothing to do but to show text.
type helpAsked struct{ text string }

func (*helpAsked) Error() string { return "help asked for" }

// programName returns the name that the program was started under and its
// arguments. Any name but the original's stands for the program's own.
func programName(argv []string) (string, []string) {
	if len(argv) == 0 {
		return ownName, nil
	}
	if filepath.Base(argv[0]) == originalName {
		return originalName, argv[1:]
	}
	return ownName, argv[1:]
}

// parse reads the command line under the program's own name. Flags stand before
// the command; what follows it belongs to it, whatever it looks like. Only top,
// which is not passed on, takes flags after it.
func parse(args []string) (*settings, error) {
	s := new(settings)
	help := new(bytes.Buffer)
	k, err := kong.New(s, kong.Name(ownName), kong.NoDefaultHelp(), kong.Writers(help, help),
		kong.ConfigureHelp(kong.HelpOptions{NoAppSummary: true, WrapUpperBound: 100}))
	if err != nil {
		return nil, err
	}
	if asked, err := completion.Print(help, k, args, allCommands()...); err != nil {
		return nil, err
	} else if asked {
		return nil, &helpAsked{help.String()}
	}
	ctx, err := k.Parse(args)
	if err != nil {
		return nil, err
	}
	// kong takes its values through JSON, which replaces what is no UTF-8: the words
	// are taken from the arguments themselves. It leaves a "--" before them.
	flags, words := args[:len(args)-len(s.Words)], args[len(args)-len(s.Words):]
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) > 0 && !s.Interactive && (words[0] == "top" || words[0] == "reread" && len(words) > 1) {
		*s = settings{top: words[0] == "top", reread: words[0] == "reread"}
		if ctx, err = k.Parse(slices.Concat(flags, words[1:])); err != nil {
			return nil, err
		}
		words = s.Words
	}
	if s.Wait && !s.reread && len(words) == 1 && words[0] == "reread" {
		s.reread, words = true, nil
	}
	s.Words = words
	if s.Version {
		return nil, &helpAsked{version.Line(ownName) + "\n"}
	}
	if s.Help {
		help.WriteString("Usage: mx-ctrl [flags] command [argument ...]\n\nAsks a multiplexor for its state, or tells it to do something.\n")
		if err := ctx.PrintUsage(false); err != nil {
			return nil, err
		}
		help.WriteString(commandsHelp)
		return nil, &helpAsked{help.String()}
	}
	return s, s.check()
}

// check looks at what kong does not.
func (s *settings) check() (err error) {
	if s.spec, err = sockspec.Parse(s.Socket); err != nil {
		return fmt.Errorf("--socket: %w", err)
	}
	switch {
	case s.Timeout < 0:
		return fmt.Errorf("--timeout: %v is negative", s.Timeout)
	case s.Interval < minInterval:
		return fmt.Errorf("--interval: %v is less than %v", s.Interval, minInterval)
	case s.JSON && !s.top:
		return errors.New("--json is for top")
	case s.Wait && !s.reread:
		return errors.New("--wait is for reread")
	case (s.top || s.reread) && len(s.Words) > 0:
		return fmt.Errorf("top and reread take no argument %q", s.Words[0])
	case s.reread && !s.Wait:
		return errors.New("reread takes no argument but --wait")
	case !s.top && !s.reread && !s.Interactive && len(s.Words) == 0:
		return errors.New("no command")
	}
	return nil
}
