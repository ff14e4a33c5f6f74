package main

import (
	"fmt"
	"log/slog"

	"postern/internal/logging"
	"postern/internal/version"
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
	background, auto := d.report.parent != nil, s.Log == logging.Auto
	if background && auto {
		options.Target = logging.Syslog // nobody sees standard error
	}
	log, queue, err := logging.New(options)
	switch {
	case err != nil && background && (auto || s.likeOriginal()):
		if !s.likeOriginal() { // which said nothing
			d.report.warning = fmt.Sprintf("the log is lost: %v", err)
		}
		d.log = slog.New(slog.DiscardHandler)
		return nil
	case err != nil && s.likeOriginal():
		options.Target = logging.Stderr
		log, queue, err = logging.New(options)
	}
	if err != nil {
		return err
	}
	d.log, d.logQueue = logging.Limit(log, lineRate, nil), queue
	return nil
}

func (d *multiplexor) closeLog() {
	_ = d.logQueue.Close() // nothing is left to report it to
}

// versionName is the answer to "version".
func (s *settings) versionName() string {
	if s.likeOriginal() {
		return originalVersion
	}
	return "postern " + version.Number()
}
