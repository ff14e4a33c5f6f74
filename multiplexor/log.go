package main

import (
	"log/slog"
	"os"
	"strings"
)

func (d *daemon) openLog() {
	d.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
}
func (d *daemon) closeLog() {}

// isTCP says whether a socket specification names a network address.
func isTCP(spec string) bool {
	return strings.HasPrefix(spec, "inet") || strings.HasPrefix(spec, "tcp:")
}

// versionName is the answer to "version".
func (s *settings) versionName() string {
	if s.likeOriginal() {
		return theirVersion
	}
	return "postern"
}
