// Package notify is the event protocol of every daemon: a Hub that tells any
// number of listeners what happens, and a Client that listens.
//
// The wire is that of mimedefang-notify(7), and postern-notify(7) describes
// what a listener may ask for beyond it.
package notify
