package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// originalSocket is where md-mx-ctrl looks for the multiplexor.
const originalSocket = "/var/spool/MIMEDefang/mimedefang-multiplexor.sock"

// originalOptions is the command line of md-mx-ctrl.
type originalOptions struct {
	socket            string
	help, interactive bool
	words             []string
}

// getopt reads a command line as md-mx-ctrl does with getopt(3) of the GNU C
// library: options may be clustered, and stand among and after the words unless
// POSIXLY_CORRECT is set; "--" ends them; -h and an error end the reading at once.
// What was read before an error is given with it.
func getopt(args []string) (originalOptions, error) {
	o := originalOptions{socket: originalSocket}
	_, inOrder := os.LookupEnv("POSIXLY_CORRECT")
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			o.words = append(o.words, args...)
			return o, nil
		case len(arg) > 1 && arg[0] == '-':
			var err error
			if args, err = o.cluster(arg[1:], args); err != nil || o.help {
				return o, err
			}
		case inOrder:
			o.words = append(append(o.words, arg), args...)
			return o, nil
		default:
			o.words = append(o.words, arg)
		}
	}
	return o, nil
}

// cluster reads the letters of one argument. It gives the arguments that are
// left: -s without more letters takes one.
func (o *originalOptions) cluster(letters string, args []string) ([]string, error) {
	for ; letters != ""; letters = letters[1:] {
		switch letters[0] {
		case 'h':
			o.help = true
			return args, nil
		case 'i':
			o.interactive = true
		case 's':
			if len(letters) > 1 {
				o.socket = letters[1:]
				return args, nil
			}
			if len(args) == 0 {
				return args, fmt.Errorf("%s: option requires an argument -- 's'", originalName)
			}
			o.socket = args[0]
			return args[1:], nil
		default:
			return args, fmt.Errorf("%s: invalid option -- '%s'", originalName, letters[:1])
		}
	}
	return args, nil
}

// helpWithin bounds the question for the multiplexor's own list of commands,
// which nobody who asks for help wants to wait for.
const helpWithin = 5 * time.Second

// originalUsage writes md-mx-ctrl's usage, with the commands that the
// multiplexor names if it can be reached.
func (t *tool) originalUsage() {
	var b strings.Builder
	b.WriteString("Usage: " + originalName + " [options] command\n\nOptions:\n" +
		"-h              -- Display help\n" +
		"-s path         -- Specify path to multiplexor socket\n" +
		"-i              -- Read commands from stdin\n")
	t.client.timeout = helpWithin
	if reply, err := t.client.ask(context.Background(), "help"); err != nil {
		b.WriteString(errorLine(err))
	} else {
		b.WriteString("\nPossible commands:\n" + untilNUL(reply))
	}
	io.WriteString(t.err, b.String())
}
