// Package logging makes the logger of a program: records go to standard error,
// the journal or the local syslog.
//
// A record is one line whatever it holds: control characters are escaped and
// long texts, which often come from strangers, are cut. Who logs never waits for
// who reads: see Queue.
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"postern/internal/printable"
)

// Targets for Options.Target.
const (
	Stderr  = "stderr"
	Journal = "journal"
	Syslog  = "syslog"
	Auto    = "auto" // the journal if standard error is connected to it, else standard error
)

// Formats for Options.Format.
const (
	Text = "text" // message and key=value
	JSON = "json" // an object
)

// LevelNotice is between info and warning: normal, but worth a look.
const LevelNotice = slog.Level(2)

// DefaultSocket is where syslogd listens. syslog(3)
const DefaultSocket = "/dev/log"

// Options say where records go and what they look like.
type Options struct {
	Target   string // default Stderr
	Format   string // default Text
	Level    slog.Leveler
	Facility string // of syslog and journal: "mail", "LOG_LOCAL0"; default mail
	Tag      string // the program's name in syslog and journal; default as started

	Output io.Writer // for Stderr; nil for os.Stderr
	Socket string    // for Syslog; "" for DefaultSocket
}

// New makes a logger and the queue that its lines go through, which the caller closes
// when the last record is written.
func New(o Options) (*slog.Logger, *Queue, error) {
	if o.Output == nil {
		o.Output = os.Stderr
	}
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	if o.Format != "" && o.Format != Text && o.Format != JSON {
		return nil, nil, fmt.Errorf("unknown log format %q", o.Format)
	}
	send, err := o.open()
	if err != nil {
		return nil, nil, err
	}
	q := newQueue(send)
	direct := o.handler(send)
	q.tell = func(n uint64) error {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped: the log was too slow or could not be written", 0)
		r.Add("count", n)
		return direct.Handle(context.Background(), r)
	}
	go q.run()
	return slog.New(o.handler(func(r record) error {
		q.put(r)
		return nil
	})), q, nil
}

// open opens the target.
func (o Options) open() (sender, error) {
	facility, err := Facility(o.Facility)
	if err != nil {
		return nil, err
	}
	stderr := func(r record) error { return writeAll(o.Output, r.line) }
	switch o.target() {
	case Stderr:
		return stderr, nil
	case Journal:
		if !journal.Enabled() {
			return nil, errors.New("log to the journal: it is not there")
		}
		return orElse(journalSender(facility, o.tag()), stderr), nil
	case Syslog:
		w, err := o.dialSyslog(facility)
		if err != nil {
			return nil, fmt.Errorf("log to syslog: %w", err)
		}
		return orElse(syslogSender(w), stderr), nil
	}
	return nil, fmt.Errorf("unknown log target %q", o.Target)
}

// dialSyslog connects to a socket of datagrams, or else to one of a stream, as syslog(3) does.
func (o Options) dialSyslog(facility syslog.Priority) (*syslog.Writer, error) {
	socket := o.Socket
	if socket == "" {
		socket = DefaultSocket
	}
	w, err := syslog.Dial("unixgram", socket, facility|syslog.LOG_INFO, o.tag())
	if errors.Is(err, syscall.EPROTOTYPE) {
		return syslog.Dial("unix", socket, facility|syslog.LOG_INFO, o.tag())
	}
	return w, err
}

// orElse passes on to second what first does not take.
func orElse(first, second sender) sender {
	return func(r record) error {
		if first(r) == nil {
			return nil
		}
		r.line = append(r.line, '\n')
		return second(r)
	}
}

// handler makes records into lines for the target.
func (o Options) handler(send sender) slog.Handler {
	if o.target() == Stderr {
		return o.stderrHandler(lineWriter{send, o.Format == JSON})
	}
	return newLineHandler(o, send)
}

// lineWriter takes lines from the standard library's handlers, which write each as a whole.
type lineWriter struct {
	send sender
	json bool
}

func (w lineWriter) Write(line []byte) (int, error) {
	if w.json {
		return len(line), w.send(record{level: slog.LevelInfo, line: printable.JSON(line)})
	}
	return len(line), w.send(record{level: slog.LevelInfo, line: line})
}

func (o Options) target() string {
	switch o.Target {
	case "":
		return Stderr
	case Auto:
		if toJournal, err := journal.StderrIsJournalStream(); err == nil && toJournal && journal.Enabled() {
			return Journal
		}
		return Stderr
	}
	return o.Target
}

func (o Options) tag() string {
	if o.Tag != "" {
		return o.Tag
	}
	return os.Args[0][strings.LastIndexByte(os.Args[0], '/')+1:]
}

// Level reads the name of a level: debug, info, notice, warn or error.
func Level(name string) (slog.Level, error) {
	if strings.EqualFold(name, "notice") {
		return LevelNotice, nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("unknown log level %q", name)
	}
	return l, nil
}

// stderrHandler writes what the standard library writes, with texts cut.
func (o Options) stderrHandler(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if level, ok := a.Value.Any().(slog.Level); ok && level == LevelNotice {
			a.Value = slog.StringValue("NOTICE")
		}
		return cut(inSeconds(a, o.Format))
	}}
	if o.Format == JSON {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// inSeconds makes a duration in JSON a number of seconds. The standard library writes nanoseconds.
func inSeconds(a slog.Attr, format string) slog.Attr {
	if format == JSON && a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

// facilities are the names of syslog.conf(5).
var facilities = map[string]syslog.Priority{
	"auth": syslog.LOG_AUTH, "authpriv": syslog.LOG_AUTHPRIV, "cron": syslog.LOG_CRON,
	"daemon": syslog.LOG_DAEMON, "ftp": syslog.LOG_FTP, "kern": syslog.LOG_KERN,
	"lpr": syslog.LOG_LPR, "mail": syslog.LOG_MAIL, "news": syslog.LOG_NEWS,
	"security": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG, "user": syslog.LOG_USER,
	"uucp": syslog.LOG_UUCP, "local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1,
	"local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3, "local4": syslog.LOG_LOCAL4,
	"local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// Facility reads the name of a syslog facility, with or without LOG_ and in any
// case; "" is mail.
func Facility(name string) (syslog.Priority, error) {
	if name == "" {
		return syslog.LOG_MAIL, nil
	}
	f, ok := facilities[strings.TrimPrefix(strings.ToLower(name), "log_")]
	if !ok {
		return 0, fmt.Errorf("unknown syslog facility %q", name)
	}
	return f, nil
}
