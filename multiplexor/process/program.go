package process

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Program is what workers run.
type Program struct {
	Path         string // absolute
	Filter       string // "" or the argument of -f
	StatusPipe   bool   // descriptor 3 and -serveru
	AddressSpace int64  // bytes, 0 = as it is
	Resident     int64  // bytes, 0 = as it is
	Env          []string
}

// args are the worker's arguments after its own name. mode is "-server" or
// "-embserver"; with a status pipe a u is added.
func (pr *Program) args(mode string) []string {
	var a []string
	if pr.Filter != "" {
		a = append(a, "-f", pr.Filter)
	}
	if pr.StatusPipe {
		mode += "u"
	}
	return append(a, mode)
}

// Environ returns an environment without what is meant for us alone, or could make
// a worker load foreign code. Under the original's name workers get the latter as they
// always did: there are filters whose modules come that way. What was withheld though
// it was not for us is named.
func Environ(env []string, original bool) (out, withheld []string) {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"), strings.HasPrefix(name, "MULTIPLEXOR_"),
			name == "NOTIFY_SOCKET", name == ForkSocketVariable, name == "GODEBUG":
		case !original && loadsCode(name):
			withheld = append(withheld, name)
		default:
			out = append(out, e)
		}
	}
	return out, withheld
}

// loadsCode reports whether a variable can make a program load code that is not its own.
func loadsCode(name string) bool {
	switch name {
	case "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED":
		return false // they say how Python works, not what it loads
	}
	for _, prefix := range []string{"LD_", "PERL5", "PYTHON", "RUBY"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "PERLLIB", "BASH_ENV", "ENV", "IFS", "NODE_OPTIONS", "NODE_PATH", "LUA_PATH", "LUA_CPATH", "LUA_INIT":
		return true
	}
	return false
}

// limit sets the limits of a process that has just been started. Between exec and
// this it may have run for some microseconds; limits count from then on.
func (pr *Program) limit(pid int) error {
	set := func(what int, bytes int64) error {
		if bytes <= 0 {
			return nil
		}
		r := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
		return unix.Prlimit(pid, what, &r, nil)
	}
	for _, l := range []struct {
		what  int
		bytes int64
	}{{unix.RLIMIT_AS, pr.AddressSpace}, {unix.RLIMIT_DATA, pr.AddressSpace}, {unix.RLIMIT_RSS, pr.Resident}} {
		if err := set(l.what, l.bytes); err != nil {
			return fmt.Errorf("limit process %d: %w", pid, err)
		}
	}
	return nil
}
