// Multiplexor starts worker processes and hands them requests, one at a time
// each. It is a drop-in for mimedefang-multiplexor; see multiplexor(8).
package main

import "os"

func main() { os.Exit(run(os.Args)) }
