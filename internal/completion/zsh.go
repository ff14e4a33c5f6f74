package completion

import (
	"fmt"
	"io"
	"strings"
)

// zshActions are the actions of _arguments for a kind of values.
var zshActions = map[kind]string{files: "_files", directories: "_directories", users: "_users", groups: "_groups", commandNames: "_command_names"}

// zsh writes the body of a completion function for its _arguments.
func zsh(w io.Writer, p *program) {
	fmt.Fprintf(w, "#compdef %s\n# Completion of %[1]s for zsh, made by %[1]s --completion zsh.\n\nlocal context state state_descr line\ntypeset -A opt_args\n", p.name)
	fmt.Fprint(w, "local -a flags=(\n")
	zshOptions(w, "\t", p.options)
	fmt.Fprint(w, ")\n")
	if len(p.commands) == 0 {
		fmt.Fprint(w, "_arguments -s -S $flags")
		zshArguments(w, p.arguments)
		fmt.Fprintln(w)
		return
	}
	fmt.Fprint(w, "local -a commands=(\n")
	for _, c := range p.commands {
		fmt.Fprintf(w, "\t%s\n", quote(c.name+":"+c.help))
	}
	fmt.Fprint(w, ")\n_arguments -s -S -C $flags '1:command:->command' '*::argument:->argument' && return\n")
	fmt.Fprint(w, "case $state in\ncommand) _describe command commands ;;\nargument)\n\tcase $words[1] in\n")
	for _, c := range p.commands {
		fmt.Fprintf(w, "\t%s)\n\t\tflags+=(\n", c.name)
		zshOptions(w, "\t\t\t", c.options)
		fmt.Fprint(w, "\t\t)\n\t\t_arguments -s -S $flags")
		zshArguments(w, c.arguments)
		fmt.Fprint(w, "\n\t\t;;\n")
	}
	fmt.Fprint(w, "\tesac\n\t;;\nesac\n")
}

// zshOptions writes a line for each name of a flag.
func zshOptions(w io.Writer, indent string, options []option) {
	for _, o := range options {
		before, colon := "("+strings.Join(o.names, " ")+")", ":"
		if o.repeats {
			before = "*"
		}
		for _, name := range o.names {
			long := strings.HasPrefix(name, "--")
			switch {
			case o.onOff && long && o.value.kind == oneOf:
				name, colon = name+"=-", "::"
			case o.onOff:
				colon = ""
			case long:
				name += "="
			default:
				name += "+"
			}
			spec := before + name + "[" + strings.NewReplacer("[", `\[`, "]", `\]`).Replace(o.help) + "]"
			if colon != "" {
				spec += colon + zshValue(o.value)
			}
			fmt.Fprintf(w, "%s%s\n", indent, quote(spec))
		}
	}
}

func zshArguments(w io.Writer, arguments []value) {
	for i, v := range arguments {
		place := fmt.Sprint(i + 1)
		if v.repeats {
			place = "*"
		}
		fmt.Fprintf(w, " %s", quote(place+":"+zshValue(v)))
	}
}

func zshValue(v value) string {
	action := zshActions[v.kind]
	if v.kind == oneOf {
		action = "(" + strings.Join(v.words, " ") + ")"
	}
	if action == "" {
		action = " " // only the name is shown
	}
	return v.name + ":" + action
}
