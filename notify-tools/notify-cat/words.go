package main

import (
	"fmt"
	"strings"

	"postern/internal/notify"
	"postern/internal/printable"
)

// meaning returns in English what a message means, in printable characters.
func meaning(m notify.Message) string {
	text := printable.Text(m.Text)
	f := strings.Fields(text)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return "?"
	}
	switch m.Letter {
	case notify.LetterAccepted:
		return fmt.Sprintf("session %s: accepted as %s, %s bytes, %s recipients", arg(0), arg(1), arg(2), arg(3))
	case notify.LetterBusyTimeout:
		return "a worker was killed: busy for too long"
	case notify.LetterConnected:
		return fmt.Sprintf("session %s: connected from %s", arg(0), arg(1))
	case notify.LetterDisconnected:
		return fmt.Sprintf("session %s: disconnected from %s after %s seconds", arg(0), arg(1), arg(2))
	case notify.LetterFault:
		if text == "" {
			return "workers can be started"
		}
		return "workers come to nothing: " + text
	case notify.LetterFree:
		return text + " free"
	case notify.LetterGated:
		return fmt.Sprintf("session %s: gate %s refuses %s, with %s", arg(0), arg(2), arg(1), arg(3))
	case notify.LetterHeld:
		return fmt.Sprintf("session %s: held as %s: %s", arg(0), arg(1), strings.Join(f[min(2, len(f)):], " "))
	case notify.LetterRejected:
		return fmt.Sprintf("session %s: refused for good with %s", arg(0), arg(1))
	case notify.LetterGate:
		switch text {
		case "0":
			return "the load is low enough"
		case "1":
			return "the load is too high"
		}
	case notify.LetterWorking:
		return text + " workers work"
	case notify.LetterStamp:
		return fmt.Sprintf("stamp for %s, user %s", arg(0), arg(1))
	case notify.LetterReread:
		if why, failed := strings.CutPrefix(text, "failed"); failed {
			return strings.TrimSuffix("the reload has failed: "+strings.TrimSpace(why), ": ")
		}
		if names, ok := strings.CutPrefix(text, "restart "); ok {
			return "the settings are read again; these need a restart: " + names
		}
		return "the filter or the settings are read again"
	case notify.LetterStatus:
		if from, to, ok := m.StateChange(); ok {
			return fmt.Sprintf("worker %s: %s, was %s", arg(0), to, from)
		}
		return fmt.Sprintf("worker %s: %s", arg(0), strings.TrimSpace(printable.Text(m.Status())))
	case notify.LetterDeferred:
		return fmt.Sprintf("session %s: refused for now with %s", arg(0), arg(1))
	case notify.LetterDied:
		return "a worker died unexpectedly"
	case notify.LetterWrongLogin:
		return fmt.Sprintf("session %s: wrong password from %s by %s as %s", arg(0), arg(1), arg(2), arg(3))
	case notify.LetterStampGone:
		return "stamp gone for " + arg(0)
	case notify.LetterSome:
		return "some are free"
	case notify.LetterNone:
		return "none is free"
	}
	return text
}
