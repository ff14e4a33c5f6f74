package completion

import (
	"fmt"
	"io"
	"strings"
)

// compgen are the arguments of bash's compgen for a kind of values.
var compgen = map[kind]string{files: "-f", directories: "-d", users: "-u", groups: "-g", commandNames: "-c"}

// bash writes a function for each program. Its words are split at = by bash, so that --flag=value comes as three; how
// is what compgen is to be asked.
func bash(w io.Writer, p *program) {
	function := "_" + strings.ReplaceAll(p.name, "-", "_")
	fmt.Fprintf(w, "# Completion of %s for bash, made by %[1]s --completion bash.\n\n%s() {\n", p.name, function)
	fmt.Fprint(w, `	local cur=$2 flag=$3 command= i how=()
	if [[ $flag == = ]]; then
		flag=${COMP_WORDS[COMP_CWORD-2]}=
	elif [[ ${COMP_WORDS[COMP_CWORD]} == = ]]; then
		cur= flag+==
	fi
`)
	bashCommand(w, p)
	fmt.Fprint(w, "\tcase \"$command $flag\" in\n")
	for _, c := range p.commands {
		bashValues(w, c.name, c.options)
	}
	bashValues(w, "*", p.options)
	fmt.Fprint(w, "\t*)\n\t\tcase $command,$cur in\n")
	for _, c := range p.commands {
		fmt.Fprintf(w, "\t\t%s,-*) how=(-W %s) ;;\n\t\t%[1]s,*) how=(%[3]s) ;;\n", c.name, quote(bashNames(c.options, p.options)), bashArguments(c.arguments))
	}
	fmt.Fprintf(w, "\t\t*,-*) how=(-W %s) ;;\n", quote(bashNames(p.options)))
	if len(p.commands) > 0 {
		var names []string
		for _, c := range p.commands {
			names = append(names, c.name)
		}
		fmt.Fprintf(w, "\t\t*) how=(-W %s) ;;\n", quote(strings.Join(names, " ")))
	} else {
		fmt.Fprintf(w, "\t\t*) how=(%s) ;;\n", bashArguments(p.arguments))
	}
	fmt.Fprintf(w, `		esac
		;;
	esac
	COMPREPLY=()
	((${#how[@]})) || return 0
	[[ " ${how[*]} " != *' -'[fd]' '* ]] || compopt -o filenames
	mapfile -t COMPREPLY < <(compgen "${how[@]}" -- "$cur")
}
complete -F %s %s
`, function, p.name)
}

// bashCommand finds the command among the words, of which some are values of flags.
func bashCommand(w io.Writer, p *program) {
	if len(p.commands) == 0 {
		return
	}
	var taking, names []string
	for _, o := range p.options {
		if !o.onOff {
			taking = append(taking, o.names...)
		}
	}
	for _, c := range p.commands {
		names = append(names, c.name)
	}
	fmt.Fprintf(w, `	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		%s)
			[[ ${COMP_WORDS[i+1]} != = ]] || ((++i))
			((++i))
			;;
		%s)
			command=${COMP_WORDS[i]}
			break
			;;
		esac
	done
`, strings.Join(taking, "|"), strings.Join(names, "|"))
}

// bashValues writes what the values of a command's flags can be, flags that are alike on one line.
func bashValues(w io.Writer, command string, options []option) {
	var order []string
	alike := map[string][]string{}
	for _, o := range options {
		if o.onOff && o.value.kind != oneOf {
			continue
		}
		how := bashValue(o.value)
		if alike[how] == nil {
			order = append(order, how)
		}
		for _, name := range o.names {
			if !o.onOff {
				alike[how] = append(alike[how], command+"' "+name+"'")
			}
			if strings.HasPrefix(name, "--") {
				alike[how] = append(alike[how], command+"' "+name+"='")
			}
		}
	}
	for _, how := range order {
		fmt.Fprintf(w, "\t%s) how=(%s) ;;\n", strings.Join(alike[how], "|"), how)
	}
}

func bashValue(v value) string {
	if v.kind == oneOf {
		return "-W " + quote(strings.Join(v.words, " "))
	}
	return compgen[v.kind]
}

// bashArguments does not tell the first argument from the second.
func bashArguments(arguments []value) string {
	var all []string
	for _, v := range arguments {
		all = append(all, bashValue(v))
	}
	return strings.TrimSpace(strings.Join(all, " "))
}

func bashNames(lists ...[]option) string {
	var names []string
	for _, list := range lists {
		for _, o := range list {
			names = append(names, o.names...)
		}
	}
	return strings.Join(names, " ")
}
