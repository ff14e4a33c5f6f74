package main

// The fork server (-E) lives in the files forkserver*.go and forkserver/:
// one process that has loaded the filter once and forks each worker from it.
