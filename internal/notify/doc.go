// Package notify is the event protocol of every daemon, as both ends see it: messages,
// their letters, and control lines. The wire is that of mimedefang-notify(7);
// postern-notify(7) describes what a listener may ask for beyond it. The daemon's end is
// package hub, that of who listens is package listener.
package notify
