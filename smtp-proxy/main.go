// Command smtp-proxy is a guarded SMTP front door: it screens clients, has messages filtered, and passes
// them on to the next hop, whose 250 is the only one that clients are told.
package main

import "postern/internal/daemon"

// programName is the name in status files, the log and the environment.
const programName = "smtp-proxy"

func main() {
	daemon.Run(new(program).program())
}
