// Command pop3-stamp is a POP3 proxy that notes which client has just logged in: smtp-proxy lets those send mail.
package main

import (
	"slices"

	"postern/internal/daemon"
	"postern/internal/notify/listener"
)

// programName is the name in status files, the log and the environment.
const programName = "pop3-stamp"

func main() { daemon.Run(newProgram()) }

// newProgram fills in the skeleton of a daemon.
func newProgram() daemon.Program { return (&server{conf: &settings{}}).program() }

func (srv *server) program() daemon.Program {
	s := srv.conf
	return daemon.Program{
		Name:        programName,
		Description: "POP3 proxy that notes which client has just logged in, for smtp-proxy to let it send mail.",
		Settings:    s,
		Commands:    s.runs(),
		AsUser:      []string{"add", "touch", "check", "list", "revoke", "expire"}, // stamps are the daemon's, in a directory of its own
		Check:       s.check,
		Warnings:    s.warnings,
		Reloads:     listener.Reloads,
		Sessions:    srv.sessionCount,
		Directories: s.directories,
		Files:       func() []string { return slices.Concat(s.TLS.Files(), s.UpstreamFiles.Files(), s.Store.Files()) },
		Listeners:   s.listeners,
		Open:        srv.open,
		Serve:       srv.serve,
	}
}
