package config

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"
)

// A Setting is one value in force.
type Setting struct {
	Name   string
	Value  string // as it would stand in the file; passwords are masked
	Source string // "default", "command line", "environment NAME" or "FILE:LINE"

	plain string // Value with its passwords, to see whether it has changed
}

// Result says what Parse found.
type Result struct {
	Program  string
	File     string    // the settings file that was read, "" for none
	Command  string    // the command of the command line, if the program has any
	Settings []Setting // in the order of the struct; a list has one for each value
}

// Source says where the (first) value of a setting comes from.
func (r *Result) Source(name string) string {
	for _, s := range r.Settings {
		if s.Name == name {
			return s.Source
		}
	}
	return ""
}

// place returns the line on which a setting stands in the file, that of the given value if it has several.
func (r *Result) place(name, value string) (file string, line int) {
	for _, s := range r.Settings {
		if s.Name != name || value != "" && s.plain != value {
			continue
		}
		number, ok := strings.CutPrefix(s.Source, r.File+":")
		if n, err := strconv.Atoi(number); ok && err == nil && r.File != "" {
			return r.File, n
		}
	}
	return "", 0
}

// Changed returns the names of the settings whose values are not the same in both, in
// the order of the struct.
func Changed(before, after *Result) (names []string) {
	values := func(r *Result) map[string]string {
		all := map[string]string{}
		for _, s := range r.Settings {
			all[s.Name] += fmt.Sprintf("%q", s.plain)
		}
		return all
	}
	old, fresh := values(before), values(after)
	for _, s := range slices.Concat(before.Settings, after.Settings) {
		if old[s.Name] != fresh[s.Name] && !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Print writes the settings in force, one on a line: name, value, source.
func (r *Result) Print(w io.Writer) error {
	file := r.File
	if file == "" {
		file = "none"
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "# %s, settings file: %s\n", r.Program, file)
	for _, s := range r.Settings {
		text := s.Value
		if text == "" {
			text = `""`
		}
		fmt.Fprintf(tw, "%s\t%s\t# %s\n", s.Name, text, s.Source)
	}
	return tw.Flush()
}

// add records the value or values of a flag that is set; the last source counts
// for the rest.
func (r *Result) add(flag *kong.Flag, sources ...string) {
	elements := []reflect.Value{flag.Target}
	if flag.IsSlice() {
		elements = nil
		for i := range flag.Target.Len() {
			elements = append(elements, flag.Target.Index(i))
		}
	}
	if len(elements) == 0 {
		r.Settings = append(r.Settings, Setting{Name: flag.Name, Source: sources[0]})
	}
	for i, element := range elements {
		plain := valueText(element)
		text := mask(plain)
		if flag.Tag.Has("secret") && text != "" {
			text = hidden
		}
		source := sources[min(i, len(sources)-1)]
		r.Settings = append(r.Settings, Setting{Name: flag.Name, Value: text, Source: source, plain: plain})
	}
}

// hidden stands in the place of a secret.
const hidden = "********"

// urlPassword finds the password of a URL: scheme://user:PASSWORD@host. It rather
// hides too much.
var urlPassword = regexp.MustCompile(`(://[^/@:\s]*:)[^\s]*@`)

func mask(text string) string {
	return urlPassword.ReplaceAllString(text, "${1}"+hidden+"@")
}

// valueText returns a value as it would stand in the file, on one line.
func valueText(v reflect.Value) string {
	var text string
	switch x := v.Interface().(type) {
	case fmt.Stringer:
		text = x.String()
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			b = []byte(err.Error())
		}
		text = string(b)
	case bool:
		text = Switch(x).String()
	default:
		text = fmt.Sprint(x)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}
