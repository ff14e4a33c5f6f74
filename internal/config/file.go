package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"postern/internal/namedfile"
)

// maxFile bounds a settings file, in bytes.
const maxFile = 1 << 20

// A value is one value of a setting and where it stands: in a file, or without
// one in the environment.
type value struct {
	file string
	line int
	key  string
	text string
}

func (v value) source() string {
	if v.file == "" {
		return "environment " + v.key
	}
	return fmt.Sprintf("%s:%d", v.file, v.line)
}

// keyKind is what may be done with a key in a settings file.
type keyKind int

const (
	keyUnknown keyKind = iota
	keyScalar          // once, with a value
	keySwitch          // once; without a value it means yes
	keyList            // any number of times
)

// readFile reads a settings file. It may be missing unless it was named; then
// the map is nil. kind judges the keys.
func readFile(path string, named bool, kind func(string) keyKind) (map[string][]value, error) {
	data, err := load(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Err: fmt.Errorf("read settings file: %w", err)}
	}
	return parseFile(path, data, kind)
}

// load reads a regular file (or /dev/null) that only root or this user can
// write to: who can change the settings of a program started as root is root.
// It never blocks on a FIFO.
func load(path string) ([]byte, error) {
	if path == os.DevNull {
		return []byte{}, nil
	}
	data, info, err := namedfile.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(path, info); err != nil {
		return nil, err
	}
	// The mark that some editors put in front of UTF-8 is no part of the first key.
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), nil
}

func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: no owner known", path)
	}
	if stat.Uid != 0 && stat.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s belongs to user %d; it must belong to root or the user who starts the program", path, stat.Uid)
	}
	if mode := info.Mode().Perm(); mode&0o002 != 0 || mode&0o020 != 0 && stat.Gid != 0 {
		return fmt.Errorf("%s can be written by others (mode %04o); try: chmod go-w %s", path, mode, path)
	}
	return nil
}

// parseFile reads "key value" lines. Empty lines and those that start with #
// count for nothing; blanks around key and value are dropped; the value "" (two
// quotes) is the empty text.
func parseFile(path string, data []byte, kind func(string) keyKind) (map[string][]value, error) {
	values := make(map[string][]value)
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		v, err := parseLine(text, kind)
		v.file, v.line = path, number
		if earlier := values[v.key]; err == nil && len(earlier) > 0 && kind(v.key) != keyList {
			err = fmt.Errorf("given twice, first on line %d", earlier[0].line)
		}
		if err != nil {
			return nil, &Error{File: path, Line: number, Key: v.key, Err: err}
		}
		values[v.key] = append(values[v.key], v)
	}
	return values, nil
}

// parseLine reads a line without blanks around it. An error comes with the key,
// if that much could be read.
func parseLine(text string, kind func(string) keyKind) (value, error) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return value{}, errors.New("line contains control characters or is not UTF-8")
	}
	key, rest := text, ""
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		key, rest = text[:i], strings.TrimSpace(text[i:])
	}
	v := value{key: key, text: rest}
	k := kind(key)
	switch {
	case k == keyUnknown && strings.Contains(key, "="):
		return v, errors.New("unknown key (a line is KEY VALUE, without =)")
	case k == keyUnknown:
		return v, errors.New("unknown key")
	case strings.HasPrefix(rest, "= "), rest == "=":
		return v, errors.New("a line is KEY VALUE, without =")
	case rest == `""`:
		v.text = ""
	case rest == "" && k == keySwitch:
		v.text = "yes"
	case rest == "":
		return v, errors.New("value missing")
	}
	return v, nil
}
