// Package tool is what the tools that listen to events have in common: how their command
// line is read, what they say on standard error, and their exit statuses.
package tool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"postern/internal/completion"
	"postern/internal/logging"
	"postern/internal/printable"
	"postern/internal/version"
)

// Common are the flags that every tool has. It is embedded in their settings.
type Common struct {
	Version kong.VersionFlag `help:"Print the version."`
}

// defaultSocket is where a multiplexor's listeners connect unless told otherwise. Settings
// name it ${socket}.
const defaultSocket = "/run/postern/multiplexor-notify.sock"

// ErrHelp says that --help, --version or --completion has printed what was asked for.
var ErrHelp = errors.New("help printed")

// Parse reads the command line into settings. stdout is where --help goes, which says of the
// program what description says.
func Parse(name, description string, settings any, args []string, stdout io.Writer) error {
	helped := false
	k, err := kong.New(settings, kong.Name(name), kong.Description(description), kong.Writers(stdout, stdout),
		kong.Vars{"socket": defaultSocket, "version": version.Line(name)}, kong.Exit(func(int) { helped = true }))
	if err != nil {
		return err
	}
	if asked, err := completion.Print(stdout, k, args); asked {
		return cmp.Or(err, ErrHelp)
	}
	if _, err := k.Parse(args); err != nil && !helped {
		return err
	}
	if helped {
		return ErrHelp
	}
	return nil
}

// Main runs a tool and ends the process with its exit status. A message that nobody reads is
// no reason to end.
func Main(run func(args []string, stdout, stderr io.Writer) int) {
	if os.Getpid() == 1 {
		signal.Ignore(syscall.SIGCHLD) // of a container, where nobody else takes note of the end of what is left behind
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Run is a tool from its command line, which parse reads, to its exit status. work does what
// the tool is for; what it writes to messages waits for nobody.
func Run(name string, stderr io.Writer, parse func() error, work func(messages io.Writer) error) int {
	switch err := parse(); {
	case errors.Is(err, ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "%s: error: %v\n%[1]s: hint: %[1]s --help lists the flags\n", name, err)
		return exitUsage
	}
	messages := logging.Relay(name, stderr)
	defer messages.Close()
	err := work(messages)
	if err != nil && !errors.Is(err, ErrUnread) {
		for text := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(messages, "%s: error: %s\n", name, printable.Text(text))
		}
	}
	return exitStatus(err)
}
