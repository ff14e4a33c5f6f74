// Package pool is the rules of the multiplexor: which worker gets a request, which requests wait, when workers are
// started, replaced and ended, what a reread of the filter does, and which messages no worker gets any more.
//
// It has no descriptor, no process and no clock of its own. What the operating system does is behind [Processes] and
// [Process], time comes from the timers that it is given, and requests come from an [Asker]. All calls, in both
// directions, are made on the goroutine that moves the timers.
//
// A slot is Stopped, Idle, Busy or Killed (worker.go). A request enters by Submit (dispatch.go), gets an idle worker
// (idle.go), has one started (pool.go), or waits (queue.go). It ends with the worker's line, or with a [Failure]. A
// worker that has finished a request is settled: it becomes idle, or is retired (replace.go). One that comes to nothing
// is noted as the fault of the pool (fault.go).
package pool
