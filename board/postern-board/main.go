// Command postern-board is a web page that shows what the daemons of one or many gateways are doing.
package main

import (
	"slices"

	"postern/internal/daemon"
	"postern/internal/notify/listener"
)

func main() { daemon.Run((&server{conf: &settings{}}).program()) }

// program fills in the skeleton of a daemon.
func (srv *server) program() daemon.Program {
	s := srv.conf
	return daemon.Program{
		Name:        "postern-board",
		Description: "Web page that shows what the daemons of one or many gateways are doing.",
		Settings:    s,
		Check:       s.check,
		Warnings:    s.warnings,
		Reloads:     listener.Reloads,
		Files:       func() []string { return slices.Concat(s.TLS.Files(), s.passwordFiles()) },
		Listeners:   s.listeners,
		Open:        srv.open,
		Serve:       srv.serve,
	}
}
