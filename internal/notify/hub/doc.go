// Package hub tells any number of listeners what happens in a daemon. Package notify
// names the protocol.
//
// # How the hub works
//
// Publish appends each message, rendered once, to a history that all listeners
// share, and returns. One goroutine, the distributor, writes to the listeners
// from there, without ever waiting: listeners with the same interest are given
// the same bytes, a listener is a place in the history, and one whose socket
// is full is left alone until it has room. So a message costs the daemon the
// same whatever the listeners do, and they do not wait for each other.
//
// What is sent close together is written together, and while the daemon is
// busy the distributor takes at most a thirty-second of a processor for longer
// than a moment, with rests of a tenth of a second at most (see pace). A listener
// therefore hears at once of a change in quiet times and within a tenth of a
// second or so in a storm, and loses nothing either way, for the history is kept
// while it is needed.
//
// # What is kept
//
// The history holds half a MiB whole (about 7 000 messages), and up to 32 MiB while
// a listener that still reads needs it. Of what is older the edges are kept
// (Y, Z, B, U, R, L; the last 22 000), the newest S of each worker and the
// newest F: this is what a listener gets that was further behind, after a
// "*LOST n" if it asked for such. One for which an edge would be missing is
// closed with "*ERR too slow".
//
// Memory is thus bounded by 32 MiB of history, 1.5 MiB of old edges, 8 MiB of
// bytes prepared for groups of listeners, about 1.2 KiB for each worker that
// ever had a tag, and for each listener 8 KiB, its share of what its socket
// holds in the kernel, and a snapshot while it is being sent; and by as much
// again for what the garbage collector has not yet found. With no listener
// it is half a MiB of history and the old edges.
package hub
