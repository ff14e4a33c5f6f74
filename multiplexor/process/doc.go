// Package process is the operating system's side of the multiplexor: it starts worker processes, reads and writes their
// pipes on the event loop, sends signals, sees how they end and what they use, and keeps the fork server.
//
// A [Starter] runs the worker program for each worker. [ForkServers] stand in for it with --fork-server: a process that
// has loaded the filter is asked for a fork of itself (multiplexor-forkserver(7)). Both return a [pool.Process], and
// what happens to it is reported to its [pool.Owner].
package process
