package notify

// Letters of messages. Several daemons say the same with F, Y, Z, R and W; what each daemon says is in its manual page.
const (
	LetterAccepted     = 'A' // a message, by the next hop
	LetterBusyTimeout  = 'B' // a worker was killed because it had been busy for too long
	LetterConnected    = 'C' // a session has begun
	LetterDisconnected = 'D' // a session has ended
	LetterFault        = 'E' // E text: why workers come to nothing, E: they work again
	LetterFree         = 'F' // F n: so many free workers or slots
	LetterRejected     = 'J' // refused for good
	LetterHeld         = 'H' // a message, as the filter wants
	LetterGated        = 'G' // a gate has refused something
	LetterGate         = 'L' // L 0 or L 1: the load gate
	LetterWorking      = 'N' // N n: so many workers have answered and not ended since
	LetterStamp        = 'P' // a stamp was written
	LetterReread       = 'R' // the filter or the settings are read again
	LetterStatus       = 'S' // S n text: what worker n does
	LetterDeferred     = 'T' // refused for now
	LetterDied         = 'U' // a worker died unexpectedly
	LetterWrongLogin   = 'W' // wrong password
	LetterStampGone    = 'X' // a stamp was revoked or has expired
	LetterSome         = 'Y' // free went from none to some
	LetterNone         = 'Z' // none is free
)
