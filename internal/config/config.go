// Package config brings the settings of a program from its command line, the
// environment, a settings file and the defaults together in one struct.
//
// A setting is a field of that struct, with the tags of kong (name, help,
// default, short, placeholder, enum, group, hidden) and one name in all its
// forms: flag --max-load, key "max-load" in the file, variable
// SMTP_PROXY_MAX_LOAD. The flag beats the variable, which beats the file, which
// beats the default. A list setting is a slice; its values are taken whole, never
// split at commas: the flag may be given several times, the key may stand on
// several lines, the variable has a value on each line. A list given in one place
// replaces that of the weaker places. An empty variable counts as not set.
//
// The tag `secret:""` hides the value where settings are printed; `env:"-"` keeps
// a flag to the command line: no variable, no key. A struct may have commands
// (tag cmd); their flags are of the command line alone, too.
package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"postern/internal/completion"
	"postern/internal/version"
)

// Dir is where the default settings files are: Dir/PROGRAM.conf.
const Dir = "/etc/postern"

// File is embedded in a settings struct. Its flags say where the settings come
// from; they are no settings themselves.
type File struct {
	Config  string `help:"Settings file." placeholder:"FILE" default:"${config_file}"`
	Check   bool   `help:"Read all settings, print those in force with where they come from, and exit: 0, or 78 if one is wrong." env:"-"`
	Version bool   `help:"Print the version and exit." env:"-"`
}

func (f *File) settingsFile() *File { return f }

// hasFile is a settings struct with an embedded File.
type hasFile interface{ settingsFile() *File }

// Validator is implemented by settings structs. Validate is called once, when all
// values are set. Its error may be an *Error; any other is wrapped in one.
type Validator interface{ Validate() error }

// Parser reads settings. Only Program must be set.
type Parser struct {
	Program     string // "smtp-proxy"
	Description string // a line or two for --help
	DefaultFile string // "" for Dir/PROGRAM.conf

	Vars   map[string]string // replace ${name} in the tags of the settings struct
	Shorts map[string]rune   // short letters for flags of embedded structs, by flag name

	Stdout io.Writer                   // for --help and --version; nil for os.Stdout
	Lookup func(string) (string, bool) // the environment; nil for os.LookupEnv
}

// Parse fills settings, a pointer to a struct, and says what came from where. It handles --help and --version itself:
// they print on standard output and end with ErrDone. Any error but ErrDone is for the user: see ExitStatus. What
// --check wants is left to the caller.
func (p *Parser) Parse(settings any, args []string) (*Result, error) {
	k, err := p.model(settings)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", p.Program, err)
	}
	if asked, err := completion.Print(k.Stdout, k, args); err != nil {
		return nil, &UsageError{err}
	} else if asked {
		return nil, ErrDone
	}
	ctx, err := kong.Trace(k, args)
	if err != nil {
		return nil, &UsageError{err}
	}
	for _, path := range ctx.Path {
		if path.Flag != nil && path.Flag == k.Model.HelpFlag {
			return nil, printed(ctx.PrintUsage(false))
		}
	}
	if ctx.Error != nil {
		return nil, &UsageError{switchApart(k, args, ctx.Error)}
	}
	return p.fill(k, ctx, settings)
}

// printed is the end of a run that was only to print something.
func printed(err error) error {
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return ErrDone
}

// model builds kong's picture of the settings. The struct is wrapped, and the
// wrap emptied, so that kong does not find its Validate method and call it as
// well. kong's reading of the environment and its splitting of lists are switched
// off: what comes from where is decided in fill.
func (p *Parser) model(settings any) (*kong.Kong, error) {
	root := struct {
		Settings any `embed:""`
	}{settings}
	vars := kong.Vars{"config_file": p.DefaultFile, "program": p.Program}
	if p.DefaultFile == "" {
		vars["config_file"] = Dir + "/" + p.Program + ".conf"
	}
	for name, value := range p.Vars {
		vars[name] = value
	}
	stdout := p.Stdout
	if stdout == nil {
		stdout = os.Stdout
	}
	k, err := kong.New(&root, vars,
		kong.Name(p.Program),
		kong.Description(p.Description),
		kong.Writers(stdout, io.Discard),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.KindMapper(reflect.Bool, boolMapper{}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
		kong.PostBuild(p.adjust),
	)
	root.Settings = nil
	return k, err
}

func (p *Parser) adjust(k *kong.Kong) error {
	for name, short := range p.Shorts {
		flag := findFlag(k, name)
		if flag == nil {
			return fmt.Errorf("no flag --%s to give the short letter %c", name, short)
		}
		flag.Short = short
	}
	return kong.Visit(k.Model.Node, func(v kong.Visitable, next kong.Next) error {
		if flag, ok := v.(*kong.Flag); ok {
			flag.Tag.Sep = -1
			sayDefault(flag)
			flag.Tag.Envs, flag.Envs = nil, nil
		}
		return next(nil)
	})
}

// sayDefault puts a default into the help of a flag where kong shows a placeholder instead, or nothing.
func sayDefault(flag *kong.Flag) {
	shown := flag.PlaceHolder == "" && !flag.IsBool()
	if flag.Default != "" && !shown && !strings.Contains(strings.ToLower(flag.Help), "default") {
		flag.Help = strings.TrimSpace(flag.Help) + " Default: " + flag.Default + "."
	}
}

func findFlag(k *kong.Kong, name string) *kong.Flag {
	for _, flag := range k.Model.Flags {
		if flag.Name == name {
			return flag
		}
	}
	return nil
}

// fill sets every value from its strongest source and checks the whole.
func (p *Parser) fill(k *kong.Kong, ctx *kong.Context, settings any) (*Result, error) {
	if err := ctx.Reset(); err != nil {
		return nil, fmt.Errorf("defaults of %s: %w", p.Program, err)
	}
	if _, err := ctx.Apply(); err != nil {
		return nil, &UsageError{err}
	}
	file := &File{}
	if f, ok := settings.(hasFile); ok {
		file = f.settingsFile()
	}
	if file.Version {
		_, err := fmt.Fprintln(k.Stdout, version.Line(p.Program))
		return nil, printed(err)
	}
	given := make(map[*kong.Flag]bool)
	for _, path := range ctx.Path {
		if path.Flag != nil {
			given[path.Flag] = true
		}
	}
	result := &Result{Program: p.Program, Command: commandName(ctx.Command())}
	lines, err := p.readFile(k, file, given, result)
	if err != nil {
		return nil, err
	}
	for _, flag := range k.Model.Flags {
		if !isSetting(flag) {
			continue
		}
		if err := p.fillOne(flag, given[flag], lines, result); err != nil {
			return nil, err
		}
	}
	if err := ctx.Validate(); err != nil { // what only the command line can lack
		return nil, &UsageError{err}
	}
	return result, validate(settings, result)
}

// commandName is kong's name of a command without its arguments, "<id>" and the like.
func commandName(command string) string {
	name, _, _ := strings.Cut(command, " <")
	return name
}

// readFile reads the settings file, if there is one: a named one must be
// there, the default one may be missing.
func (p *Parser) readFile(k *kong.Kong, file *File, given map[*kong.Flag]bool, result *Result) (map[string][]value, error) {
	flag := findFlag(k, "config")
	if file.Config == "" || flag == nil {
		return nil, nil
	}
	named := given[flag]
	if !named {
		name := p.variable(flag.Name)
		if path := p.lookup(name); path != "" {
			file.Config, named = path, true
		}
	}
	result.File = file.Config
	lines, err := readFile(file.Config, named, func(key string) keyKind {
		f := findFlag(k, key)
		switch {
		case f == nil || !isSetting(f):
			return keyUnknown
		case f.IsSlice():
			return keyList
		case f.IsBool():
			return keySwitch
		}
		return keyScalar
	})
	if lines == nil && err == nil {
		result.File = ""
	}
	return lines, err
}

// fillOne sets one flag, unless the command line did, from the environment or
// the file, and records what is in force.
func (p *Parser) fillOne(flag *kong.Flag, given bool, lines map[string][]value, result *Result) error {
	if given {
		if err := checkEnum(flag, flag.Target); err != nil {
			return &UsageError{fmt.Errorf("--%s: %w", flag.Name, err)}
		}
		result.add(flag, "command line")
		return nil
	}
	values := p.environment(flag)
	if values == nil {
		values = lines[flag.Name]
	}
	if values == nil {
		result.add(flag, "default")
		return nil
	}
	target := reflect.New(flag.Target.Type()).Elem()
	var sources []string
	for _, v := range values {
		token := kong.Token{Type: kong.FlagValueToken, Value: v.text}
		err := flag.Parse(kong.ScanFromTokens(token), target)
		if err != nil {
			err = withoutFlag(flag, err)
		} else {
			err = checkEnum(flag, target)
		}
		if err != nil {
			return &Error{File: v.file, Line: v.line, Key: v.key, Err: err}
		}
		sources = append(sources, v.source())
	}
	flag.Apply(target)
	result.add(flag, sources...)
	return nil
}

// environment returns the values of a flag's variable, or nil.
func (p *Parser) environment(flag *kong.Flag) []value {
	name := p.variable(flag.Name)
	text := p.lookup(name)
	if text == "" {
		return nil
	}
	if !flag.IsSlice() {
		return []value{{key: name, text: text}}
	}
	var values []value
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			values = append(values, value{key: name, text: line})
		}
	}
	return values
}

func (p *Parser) variable(flag string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(p.Program + "_" + flag))
}

func (p *Parser) lookup(name string) string {
	lookup := p.Lookup
	if lookup == nil {
		lookup = os.LookupEnv
	}
	text, _ := lookup(name)
	return text
}

// isSetting reports whether a flag of the root may stand in the file and the
// environment.
func isSetting(flag *kong.Flag) bool {
	return flag.Name != "help" && flag.Name != "config" && flag.Tag.Get("env") != "-"
}
