package notify

import (
	"fmt"
	"strings"

	"postern/internal/printable"
)

// Words returns in English what the message means, in printable characters.
func (m Message) Words() string {
	text := printable.Text(m.Text)
	f := strings.Fields(text)
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return "?"
	}
	switch m.Letter {
	case LetterAccepted:
		return fmt.Sprintf("session %s: accepted as %s, %s bytes, %s recipients", arg(0), arg(1), arg(2), arg(3))
	case LetterBusyTimeout:
		return "a worker was killed: busy for too long"
	case LetterConnected:
		return fmt.Sprintf("session %s: connected from %s", arg(0), arg(1))
	case LetterDisconnected:
		return fmt.Sprintf("session %s: disconnected from %s after %s seconds", arg(0), arg(1), arg(2))
	case LetterFault:
		if text == "" {
			return "workers can be started"
		}
		return "workers come to nothing: " + text
	case LetterFree:
		return text + " free"
	case LetterGated:
		return fmt.Sprintf("session %s: gate %s refuses %s, with %s", arg(0), arg(2), arg(1), arg(3))
	case LetterHeld:
		return fmt.Sprintf("session %s: held as %s: %s", arg(0), arg(1), strings.Join(f[min(2, len(f)):], " "))
	case LetterRejected:
		return fmt.Sprintf("session %s: refused for good with %s", arg(0), arg(1))
	case LetterGate:
		switch text {
		case "0":
			return "the load is low enough"
		case "1":
			return "the load is too high"
		}
	case LetterWorking:
		return text + " workers work"
	case LetterStamp:
		return fmt.Sprintf("stamp for %s, user %s", arg(0), arg(1))
	case LetterReread:
		if why, failed := strings.CutPrefix(text, "failed"); failed {
			return strings.TrimSuffix("the reload has failed: "+strings.TrimSpace(why), ": ")
		}
		if names, ok := strings.CutPrefix(text, "restart "); ok {
			return "the settings are read again; these need a restart: " + names
		}
		if pid, ok := strings.CutPrefix(text, "replaced "); ok {
			return "another process has taken over: " + pid
		}
		return "the filter or the settings are read again"
	case LetterStatus:
		if from, to, ok := m.StateChange(); ok {
			return fmt.Sprintf("worker %s: %s, was %s", arg(0), to, from)
		}
		return fmt.Sprintf("worker %s: %s", arg(0), strings.TrimSpace(printable.Text(m.Status())))
	case LetterDeferred:
		return fmt.Sprintf("session %s: refused for now with %s", arg(0), arg(1))
	case LetterDied:
		return "a worker died unexpectedly"
	case LetterWrongLogin:
		return fmt.Sprintf("session %s: wrong password from %s by %s as %s", arg(0), arg(1), arg(2), arg(3))
	case LetterStampGone:
		return "stamp gone for " + arg(0)
	case LetterSome:
		return "some are free"
	case LetterNone:
		return "none is free"
	}
	return text
}
