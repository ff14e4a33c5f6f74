package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Mode is what a worker program was told to do on its command line.
type Mode int

// The modes, and their arguments.
const (
	None         Mode = iota // nothing of the kind
	Server                   // -server: requests on standard input
	StatusServer             // -serveru: the same, with status lines on descriptor 3
	Once                     // DIR: scan one working directory
	Test                     // -test: see whether the filter can be started
)

// Args are the arguments that a multiplexor gives a worker.
type Args struct {
	Mode   Mode
	Filter string // of -f FILE; "" if there was none
	Dir    string // with Once
	Rest   []string
}

// ParseArgs takes the arguments of the protocol out of a command line and leaves the others, which are the program's
// own, in Rest. Words of their own are left there too, but a path with a slash in it, at the end, is a DIR.
func ParseArgs(args []string) (Args, error) {
	var a Args
	modes := map[string]Mode{"-server": Server, "-serveru": StatusServer, "-test": Test}
	for i := 0; i < len(args); i++ {
		mode, isMode := modes[args[i]]
		switch {
		case isMode && a.Mode != None:
			return a, fmt.Errorf("argument %s: only one of -server, -serveru, -test", args[i])
		case isMode:
			a.Mode = mode
		case args[i] == "-f" && i+1 == len(args):
			return a, errors.New("argument -f: needs a file")
		case args[i] == "-f":
			i++
			a.Filter = args[i]
		default:
			a.Rest = append(a.Rest, args[i])
		}
	}
	if n := len(a.Rest); a.Mode == None && n > 0 && strings.HasPrefix(a.Rest[n-1], "/") {
		a.Mode, a.Dir, a.Rest = Once, a.Rest[n-1], a.Rest[:n-1]
	}
	return a, nil
}

// Main is a whole worker program: it reads its arguments, does what they say and exits. Programs with settings of
// their own call ParseArgs and Run.
func Main(f *Filter) {
	args, err := ParseArgs(os.Args[1:])
	if err == nil && (args.Mode == None || len(args.Rest) > 0) {
		err = errors.New("usage: [-f FILE] -server | -serveru | -test | /DIR")
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(64)
	}
	os.Exit(f.Run(args))
}

// Run does what args say on the process's own descriptors and returns the exit status: that of Cleanup, 1 if the
// filter could not be started or the other side went away.
func (f *Filter) Run(args Args) int {
	// What a filter prints must not get among the answers.
	out := os.Stdout
	os.Stdout = os.Stderr
	s := &server{Filter: f}
	if f.Initialize != nil {
		if err := f.Initialize(); err != nil {
			s.log("initialize: %v", err)
			return 1
		}
	}
	var err error
	switch args.Mode {
	case Server:
		err = f.Serve(os.Stdin, out, nil)
	case StatusServer:
		status := os.NewFile(3, "status")
		err = f.Serve(os.Stdin, out, statusWriter(status))
	case Once:
		err = s.scan(args.Dir)
	case Test:
		_, err = fmt.Fprintf(out, "Filter %s seems syntactically correct.\n", args.Filter)
	default:
		err = errors.New("nothing to do")
	}
	if err != nil {
		s.log("%v", err)
	}
	if f.Cleanup != nil {
		if status := f.Cleanup(); status != 0 {
			return status
		}
	}
	if err != nil {
		return 1
	}
	return 0
}

// statusWriter is f as an io.Writer, nil if descriptor 3 is not open.
func statusWriter(f *os.File) io.Writer {
	if f == nil {
		return nil
	}
	if _, err := f.Stat(); err != nil {
		return nil
	}
	return f
}
