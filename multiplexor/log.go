package main

import (
	"io"
	"log/slog"
	"runtime/debug"
	"strings"

	"postern/internal/logging"
)

// openLog opens the log. Under the original's name a machine without a syslog is
// no reason not to start, as it never was.
func (d *multiplexor) openLog() (err error) {
	s := d.settings
	level, err := logging.Level(s.LogLevel)
	if err != nil {
		return err
	}
	options := logging.Options{Target: s.Log, Format: s.LogFormat, Level: level, Facility: s.Facility, Tag: s.Tag}
	d.log, d.logEnd, err = logging.New(options)
	if err != nil && s.likeOriginal() {
		options.Target = logging.Stderr
		if !s.Foreground {
			d.log, d.logEnd = slog.New(slog.DiscardHandler), io.NopCloser(nil)
			return nil
		}
		d.log, d.logEnd, err = logging.New(options)
	}
	return err
}

func (d *multiplexor) closeLog() {
	if d.logEnd != nil {
		_ = d.logEnd.Close() // nothing is left to report it to
	}
}

// isTCP says whether a socket specification names a network address.
func isTCP(spec string) bool {
	return strings.HasPrefix(spec, "inet") || strings.HasPrefix(spec, "tcp:")
}

// versionName is the answer to "version".
func (s *settings) versionName() string {
	if s.likeOriginal() {
		return theirVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "postern " + info.Main.Version
	}
	return "postern"
}
