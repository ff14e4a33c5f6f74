package completion

import (
	"fmt"
	"io"
	"strings"
)

// fishValues are the flags of fish's complete for a kind of values.
var fishValues = map[kind]string{
	anything: "-x", files: "-r -F", directories: "-x -a '(__fish_complete_directories)'", users: "-x -a '(__fish_complete_users)'",
	groups: "-x -a '(__fish_complete_groups)'", commandNames: "-x -a '(__fish_complete_command)'",
}

// fish writes a line for each flag and argument.
func fish(w io.Writer, p *program) {
	start := "complete -c " + p.name
	fmt.Fprintf(w, "# Completion of %s for fish, made by %[1]s --completion fish.\n\n%s -f\n", p.name, start)
	fishCommand(w, start, p.command)
	for _, c := range p.commands {
		fmt.Fprintf(w, "%s -n __fish_use_subcommand -a %s -d %s\n", start, c.name, fishQuote(c.help))
		fishCommand(w, start+" -n '__fish_seen_subcommand_from "+c.name+"'", c)
	}
}

func fishCommand(w io.Writer, start string, c command) {
	for _, o := range c.options {
		line := start
		if len(o.names) > 1 {
			line += " -s " + strings.TrimPrefix(o.names[0], "-")
		}
		line += " -l " + o.long()
		if !o.onOff {
			line += " " + fishValue(o.value)
		}
		fmt.Fprintf(w, "%s -d %s\n", line, fishQuote(o.help))
	}
	for _, v := range c.arguments {
		switch v.kind {
		case anything:
		case files:
			fmt.Fprintf(w, "%s -F\n", start)
		default:
			fmt.Fprintf(w, "%s %s\n", start, strings.TrimPrefix(fishValue(v), "-x "))
		}
	}
}

func fishValue(v value) string {
	if v.kind == oneOf {
		return "-x -a " + fishQuote(strings.Join(v.words, " "))
	}
	return fishValues[v.kind]
}

// fishQuote makes a text one word. Within single quotes fish knows escapes of them and of backslashes.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
