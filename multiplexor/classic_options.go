package main

import (
	"slices"
	"strings"
)

// The original's options: those with a value, and those without.
const (
	classicValues   = "abcfFiILmMNoOpPqQrRsStUVwWxXyYz"
	classicSwitches = "AdDEGhklTuvZ"
)

// classicArguments reads a command line as getopt(3) did for the original and gives
// one with the same meaning for our parser: each option by itself, its value
// attached to it, which may begin with a hyphen (-V -1). Of an option that is
// repeated the last one counts, and what is no option is ignored. A command line
// with long options is left as it is, and so is what the original did not know.
func classicArguments(args []string) []string {
	var out []string
	add := func(option, value string) {
		if value != "" {
			out = slices.DeleteFunc(out, func(o string) bool { return strings.HasPrefix(o, option) })
		}
		out = append(out, option+value)
	}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			return out
		case strings.HasPrefix(a, "--"):
			return args
		case len(a) < 2 || a[0] != '-':
		default:
			for letters := a[1:]; letters != ""; {
				option := "-" + letters[:1]
				letters = letters[1:]
				switch {
				case strings.Contains(classicSwitches, option[1:]):
					add(option, "")
					continue
				case !strings.Contains(classicValues, option[1:]):
					return args
				case letters == "" && (i+1 == len(args) || args[i+1] == ""):
					return args // no value
				case letters == "":
					i++
					letters = args[i]
				}
				add(option, letters)
				letters = ""
			}
		}
	}
	return out
}

// attachNegative attaches negative numbers to the short options they stand behind
// (-V -1): our parser would take them for options.
func attachNegative(args []string) []string {
	var out []string
	for _, a := range args {
		if n := len(out); n > 0 && len(a) > 1 && a[0] == '-' && '0' <= a[1] && a[1] <= '9' && wantsValue(out[n-1]) {
			out[n-1] += a
			continue
		}
		out = append(out, a)
	}
	return out
}

// wantsValue reports whether an argument is short options of which the last one has a
// value, which is not there.
func wantsValue(arg string) bool {
	last := len(arg) - 1
	return last > 0 && arg[0] == '-' && strings.Trim(arg[1:last], classicSwitches) == "" && strings.Contains(classicValues, arg[last:])
}
