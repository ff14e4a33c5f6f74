package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"postern/internal/config"
	"postern/internal/logging"
	"postern/internal/privdrop"
	"postern/internal/safedir"
)

// Common are the settings that every daemon has. It is embedded in their settings
// structs.
type Common struct {
	config.File

	User       string `help:"User to become when started as root: NAME, UID, UID.GID or NAME:GROUP." placeholder:"USER" default:"nobody"`
	AllowRoot  bool   `help:"Allow the user to be root."`
	NoNewPrivs string `name:"no-new-privs" help:"Whether programs that are set-uid or set-gid get no rights when this one starts them: yes, no, or auto (yes, unless a program is set to be started)." enum:"auto,yes,no" default:"auto" placeholder:"WHEN"`
	Pidfile    string `help:"File for the process id." placeholder:"FILE"`

	Log            string `help:"Where the log goes: stderr, journal, syslog, or auto (the journal if standard error is connected to it, else stderr)." enum:"auto,stderr,journal,syslog" default:"auto" placeholder:"TARGET"`
	LogLevel       string `help:"Least level that is logged: debug, info, notice, warn or error." enum:"debug,info,notice,warn,error" default:"info" placeholder:"LEVEL"`
	LogFormat      string `help:"Form of log records: text or json." enum:"text,json" default:"text" placeholder:"FORMAT"`
	SyslogFacility string `help:"Facility for syslog and journal." default:"mail" placeholder:"FACILITY"`
	SyslogTag      string `help:"Name of the program in syslog and journal." default:"${program}" placeholder:"TAG"`

	Reload int `help:"Check the settings, have the daemon with this process id reload them, and exit with the outcome: 0, 1, or 78 if a setting is wrong." placeholder:"PID" env:"-"`

	TakeOver bool `help:"With --reload: have a new process take over if settings that need a restart, or the program, have changed. Not under a supervisor that does not follow it." env:"-"`

	DrainTimeout time.Duration `help:"How long what goes on may take to end after SIGTERM; 0 for no limit." default:"30s" placeholder:"TIME"`
}

func (c *Common) common() *Common { return c }

// Settings is implemented by a pointer to a struct that embeds Common.
type Settings interface{ common() *Common }

// validate checks what kong cannot.
func (c *Common) validate() error {
	if _, err := logging.Facility(c.SyslogFacility); err != nil {
		return &config.Error{Key: "syslog-facility", Err: err}
	}
	if os.Geteuid() != 0 {
		return nil
	}
	a, err := privdrop.Lookup(c.User)
	if err == nil && a.IsRoot() && !c.AllowRoot {
		err = fmt.Errorf("%s: %w", a, privdrop.ErrRoot)
	}
	if err != nil {
		return &config.Error{Key: "user", Err: err}
	}
	return nil
}

// Accounts returns the user who serves in the end, if that is not the one who starts: directories may belong to it.
func (c *Common) Accounts() []safedir.Account {
	if os.Geteuid() != 0 {
		return nil
	}
	a, err := privdrop.Lookup(c.User)
	if err != nil {
		return nil // validate says so
	}
	return []safedir.Account{{UID: a.UID, GID: a.GID}}
}

// logger makes the program's logger. Everything in the program has its logger from this one, so that there is no
// line that a stranger could cause without limit.
func (c *Common) logger(stderr io.Writer) (*slog.Logger, *logging.Queue, error) {
	level, err := logging.Level(c.LogLevel)
	if err != nil {
		return nil, nil, err
	}
	log, queue, err := logging.New(logging.Options{
		Target: c.Log, Format: c.LogFormat, Level: level, Facility: c.SyslogFacility, Tag: c.SyslogTag, Output: stderr,
	})
	if err != nil {
		return nil, nil, err
	}
	return logging.Limit(log, logging.Strangers, nil), queue, nil
}

// logsElsewhere reports whether the log is surely not on standard error. With auto
// it is there, or in the journal, which standard error is connected to then.
func (c *Common) logsElsewhere() bool {
	return c.Log == logging.Syslog || c.Log == logging.Journal
}
