// Package listener listens to the events of daemons: over one connection, or for as long as it
// is wanted, across lost connections, and missing nothing. Package notify names the protocol.
package listener
