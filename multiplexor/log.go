package main

import (
	"context"
	"fmt"
	"log/slog"

	"postern/internal/logging"
	"postern/internal/version"
)

// openLog opens the log. Under the original's name a machine without a syslog is
// no reason not to start, as it never was.
func (d *multiplexor) openLog(report *reporter) (err error) {
	s := d.settings
	level, err := logging.Level(s.LogLevel)
	if err != nil {
		return err
	}
	options := logging.Options{Target: s.Log, Format: s.LogFormat, Level: level, Facility: s.Facility, Tag: s.Tag}
	background, auto := report.parent != nil, s.Log == logging.Auto
	if background && auto {
		options.Target = logging.Syslog // nobody sees standard error
	}
	log, queue, err := logging.New(options)
	switch {
	case err != nil && background && (auto || s.likeOriginal()):
		if !s.likeOriginal() { // which said nothing
			report.warning = fmt.Sprintf("the log is lost: %v", err)
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

// courseLog is where the skeleton says how the program fares. Under the original's name that is what goes wrong, and no
// line that the original has not.
func (d *multiplexor) courseLog() *slog.Logger {
	if d.settings.likeOriginal() {
		return slog.New(onlyTrouble{d.log.Handler()})
	}
	return d.log
}

// onlyTrouble takes warnings and errors.
type onlyTrouble struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h onlyTrouble) Enabled(ctx context.Context, l level) bool {
	return l >= levelWarning && h.Handler.Enabled(ctx, l)
}

// versionName is the answer to "version".
func (s *settings) versionName() string {
	if s.likeOriginal() {
		return originalVersion
	}
	return "postern " + version.Number()
}
