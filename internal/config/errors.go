package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit statuses, after sysexits.h.
const (
	ExitUsage    = 64 // the command line is wrong
	ExitSettings = 78 // a setting is wrong
)

// ErrDone says that --help, --version or --check printed what was asked for,
// and that there is nothing else to do.
var ErrDone = errors.New("nothing else to do")

// UsageError is an error of the command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Error is an error of one setting, or of all together if Key is empty. Line
// counts from 1; without File and Line the value is not from a file, and Key is the
// name of an environment variable or a setting.
type Error struct {
	File string
	Line int
	Key  string
	Err  error

	// Value is the one of a list setting that is wrong, for an error of Validate: it tells which line it stands on.
	Value string
}

// Error gives "FILE:LINE: KEY: what is wrong", without the parts that are not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ExitStatus returns the status with which a program ends after an error of
// Parse: 0 for nil and ErrDone, ExitUsage or ExitSettings.
func ExitStatus(err error) int {
	var usage *UsageError
	switch {
	case err == nil || errors.Is(err, ErrDone):
		return 0
	case errors.As(err, &usage):
		return ExitUsage
	}
	return ExitSettings
}

// IsError reports whether err is about a setting or the command line: to try again with them helps nobody.
func IsError(err error) bool {
	var one *Error
	var usage *UsageError
	return errors.As(err, &one) || errors.As(err, &usage)
}

// validate calls Validate, and says where a value that it does not like comes from.
func validate(settings any, result *Result) error {
	v, ok := settings.(Validator)
	if !ok {
		return nil
	}
	err := v.Validate()
	var whole *Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &whole):
		return &Error{Err: err}
	case whole.File == "" && whole.Key != "":
		whole.File, whole.Line = result.place(whole.Key, whole.Value)
	}
	return err
}

// checkEnum holds a value, or each of a list, against the enum tag. kong would
// check it too, but without saying where the value comes from.
func checkEnum(flag *kong.Flag, target reflect.Value) error {
	if flag.Enum == "" {
		return nil
	}
	if target.Kind() == reflect.Slice {
		for i := range target.Len() {
			if err := checkEnum(flag, target.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	text := fmt.Sprint(target.Interface())
	if !slices.Contains(flag.EnumSlice(), text) {
		return fmt.Errorf("%q is none of %s", text, strings.Join(flag.EnumSlice(), ", "))
	}
	return nil
}

// switchApart says how a switch gets its value, if err is of one that stands apart from it: "--drop no".
func switchApart(k *kong.Kong, args []string, err error) error {
	text, _, _ := strings.Cut(err.Error(), ", did you mean") // one of the commands, where there are some
	for i := 1; i < len(args); i++ {
		flag, arg := findFlag(k, strings.TrimPrefix(args[i-1], "--")), args[i]
		if flag != nil && flag.IsBool() && text == "unexpected argument "+arg {
			return fmt.Errorf("%s: write --%s=%s", text, flag.Name, arg)
		}
	}
	return err
}

// withoutFlag takes off the "--name: " that kong puts before an error: the
// value came from elsewhere, and that is said in its place.
func withoutFlag(flag *kong.Flag, err error) error {
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), flag.ShortSummary()+": ") {
		return inner
	}
	return err
}
