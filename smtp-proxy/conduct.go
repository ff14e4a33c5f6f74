package main

import "time"

// errorLimits is what is held against a client, how much of it may be, and how long the client waits for what
// it did wrong.
type errorLimits struct {
	maxErrors, maxRefusals, maxJunk int
	errorDelay                      time.Duration

	errors   int  // commands in error since a message was accepted; so for the next two
	refusals int  // names, senders, recipients and messages that were refused for good
	junk     int  // commands that moved nothing forward
	wasted   bool // the command of the moment led to nothing, our own failures included
	delays   int  // that the client has not waited for yet
	total    int  // errors and refusals in all
}

func newErrorLimits(conf *live) errorLimits {
	return errorLimits{maxErrors: conf.MaxErrors, maxRefusals: conf.MaxRefusals, maxJunk: conf.MaxJunk, errorDelay: conf.ErrorDelay}
}

// addError counts a command in error; it reports whether that was one too many.
func (l *errorLimits) addError() bool {
	l.errors++
	l.delay(l.errors, l.maxErrors)
	return l.errors >= l.maxErrors
}

// addRefusal counts what was refused for good; it reports whether that was one too many.
func (l *errorLimits) addRefusal() bool {
	l.refusals++
	l.delay(l.refusals, l.maxRefusals)
	return l.refusedTooOften()
}

// addJunk counts a command that moves nothing forward; it reports whether that was one too many.
func (l *errorLimits) addJunk() bool {
	l.junk++
	return l.junk >= l.maxJunk
}

// delay makes the client wait for what it did wrong, once that is more than half of what it may.
func (l *errorLimits) delay(n, limit int) {
	if l.total++; n > limit/2 {
		l.delays++
	}
}

// mostDelays bounds how often the delay of an error is waited for at a time.
const mostDelays = 10

// takeDelay returns how long the client has to wait now, for all that it did wrong since it was asked last.
func (l *errorLimits) takeDelay() time.Duration {
	n := l.delays
	l.delays = 0
	return time.Duration(min(n, mostDelays)) * l.errorDelay
}

// takeWasted reports whether the command led to nothing. Each of those costs us something, and a client that
// goes on all the same does not get more of them than of other junk.
func (l *errorLimits) takeWasted() bool {
	w := l.wasted
	l.wasted = false
	return w
}

// lastRefusal reports whether the next refusal is one too many.
func (l *errorLimits) lastRefusal() bool { return l.refusals+1 >= l.maxRefusals }

// refusedTooOften reports whether too much was refused.
func (l *errorLimits) refusedTooOften() bool { return l.refusals >= l.maxRefusals }

// guesses reports whether a client may name no more recipients of its message: too many of them were refused,
// for so many that were accepted. Those get the message all the same, which makes up for the others; so
// whoever sends to a large mailing list, of which some are always unknown, is done with it some day.
func (l *errorLimits) guesses(accepted int) bool {
	return l.refusedTooOften() && accepted < goodPerUnknown*l.refusals
}

// goodPerUnknown is how many recipients must be taken for one who may be refused, beyond the limit.
const goodPerUnknown = 10

// forgive takes back what was held against a client: it has delivered mail.
func (l *errorLimits) forgive() {
	l.errors, l.refusals, l.junk, l.wasted, l.delays = 0, 0, 0, false, 0
}
