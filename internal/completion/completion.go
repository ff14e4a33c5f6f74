// Package completion writes the scripts by which bash, zsh and fish complete the command lines of the programs: from
// kong's model of a program, which its --help comes from as well.
//
// What can stand in the place of a value is told by its tags: enum, or the words of `complete:"one two"`; a placeholder
// that begins with FILE, SPEC (a socket), DIR, USER, GROUP or COMMAND stands for such names.
package completion

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// Print writes the script to w if that is what the arguments ask for: --completion bash, zsh or fish, and nothing else.
// Given words are what the program's arguments can be.
func Print(w io.Writer, k *kong.Kong, args []string, words ...string) (asked bool, err error) {
	if len(args) != 2 || args[0] != "--completion" {
		return false, nil
	}
	write := map[string]func(io.Writer, *program){"bash": bash, "zsh": zsh, "fish": fish}[args[1]]
	if write == nil {
		return true, fmt.Errorf("--completion: %q is none of bash, zsh and fish", args[1])
	}
	p, out := newProgram(k.Model.Node), bufio.NewWriter(w)
	if len(words) > 0 {
		p.arguments = []value{{name: "command", repeats: true, kind: oneOf, words: words}}
	}
	write(out, p)
	return true, out.Flush()
}

// program is what can stand on a command line.
type program struct {
	command
	commands []command
}

// command is the program itself, or one of its commands.
type command struct {
	name, help string
	options    []option
	arguments  []value
}

// option is a flag.
type option struct {
	names   []string // with their dashes, the long one last
	help    string
	onOff   bool // a value can only follow after =, and may be missing
	repeats bool
	value   value
}

// value is what can stand in a place.
type value struct {
	name    string // for whoever reads
	repeats bool
	kind    kind
	words   []string // of kind oneOf
}

type kind int

const (
	anything kind = iota // nobody can tell
	oneOf                // words that are known
	files
	directories
	users
	groups
	commandNames
)

// kinds are the kinds of values by the first word of their placeholders.
var kinds = map[string]kind{"FILE": files, "SPEC": files, "DIR": directories, "USER": users, "GROUP": groups, "COMMAND": commandNames}

func newProgram(root *kong.Node) *program {
	p := &program{command: newCommand(root)}
	for _, child := range root.Children {
		if !child.Hidden {
			p.commands = append(p.commands, newCommand(child))
		}
	}
	return p
}

func newCommand(n *kong.Node) command {
	c := command{name: n.Name, help: sentence(n.Help)}
	for _, f := range n.Flags {
		if f.Hidden {
			continue
		}
		o := option{help: sentence(f.Help), onOff: f.IsBool(), repeats: f.IsCumulative(), value: newValue(f.Value, f.PlaceHolder)}
		if f.Short != 0 {
			o.names = append(o.names, "-"+string(f.Short))
		}
		o.names = append(o.names, "--"+f.Name)
		c.options = append(c.options, o)
	}
	for _, v := range n.Positional {
		c.arguments = append(c.arguments, newValue(v, v.Tag.PlaceHolder))
	}
	return c
}

func newValue(v *kong.Value, placeholder string) value {
	first, _, _ := strings.Cut(placeholder, " ")
	got := value{name: v.Name, repeats: v.IsCumulative(), kind: kinds[first]}
	switch {
	case v.Tag.Has("complete"):
		got.words = strings.Fields(v.Tag.Get("complete"))
	case v.Enum != "":
		got.words = v.EnumSlice()
	case v.IsBool() && v.HasDefault: // others are off unless they are given
		got.words = []string{"yes", "no"}
	}
	if got.words != nil {
		got.kind = oneOf
	}
	return got
}

// sentence gives the first sentence of a help text, without its full stop.
func sentence(help string) string {
	first, _, _ := strings.Cut(help, ". ")
	return strings.TrimSuffix(first, ".")
}

// long gives the long name of a flag, without dashes.
func (o *option) long() string { return strings.TrimPrefix(o.names[len(o.names)-1], "--") }

// quote makes a text one word for any of the shells.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
