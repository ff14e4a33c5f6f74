// Command postern-board is a web page that shows what the daemons of one or many gateways are doing.
package main

import (
	"os"
	"slices"

	"postern/internal/daemon"
	"postern/internal/notify"
)

func main() { daemon.Run((&server{conf: &settings{}, args: os.Args[1:]}).program()) }

// program fills in the skeleton of a daemon.
func (srv *server) program() daemon.Program {
	s := srv.conf
	return daemon.Program{
		Name:        "postern-board",
		Description: "Web page that shows what the daemons of one or many gateways are doing.",
		Settings:    s,
		Check:       s.check,
		Warnings:    s.warnings,
		Reloads:     notify.Reloads,
		Files:       func() []string { return slices.Concat(s.TLS.Files(), s.passwordFiles()) },
		Listeners:   s.listeners,
		Open:        srv.open,
		Serve:       srv.serve,
	}
}
