// Package smtp is the wire of SMTP, for both sides of a proxy: command lines,
// paths and parameters, replies, and the content of messages up to the lone dot.
// It reads with limits, writes only what is well-formed, and knows nothing of
// sessions. RFC 5321.
package smtp
