package workdir

// Letters that begin the lines of RESULTS, the file in which a worker says what is to become of a message.
const (
	ResultEnd      = 'F' // the end: deliver, with the changes, unless a line before it says otherwise
	ResultReject   = 'B' // refuse for good
	ResultTempFail = 'T' // refuse for now
	ResultDiscard  = 'D' // accept and throw away

	ResultNewBody = 'C' // NEWBODY replaces the body
	ResultHold    = 'Q' // hold the message back for an administrator

	ResultAddField        = 'H' // add a field at the end of the header
	ResultInsertField     = 'N' // insert a field at an index, 0 = top
	ResultChangeField     = 'I' // change an occurrence of a field
	ResultDeleteField     = 'J' // delete an occurrence of a field
	ResultContentType     = 'M' // set Content-Type
	ResultAddRecipient    = 'R'
	ResultDeleteRecipient = 'S'
	ResultChangeSender    = 'f'
)

// Letters that begin the lines of COMMANDS, the file in which a worker reads what is known about a message.
const (
	CommandID             = 'i'
	CommandSender         = 'S'
	CommandSenderArg      = 's' // a parameter of MAIL
	CommandMacro          = '=' // name and value of a macro
	CommandQueueID        = 'Q'
	CommandClientName     = 'H'
	CommandClientIP       = 'I'
	CommandRealIP         = 'J' // the client, where another one only passed the message on
	CommandHelo           = 'E'
	CommandRecipient      = 'R'
	CommandRecipientArg   = 'r' // a parameter of RCPT
	CommandSubject        = 'U'
	CommandMessageID      = 'X'
	CommandSuspiciousHead = '!' // there are suspicious characters in the header
	CommandSuspiciousBody = '?' // there are suspicious characters in the body
	CommandEnd            = 'F' // the end: without it the file is not complete
)

// MacroDeadline is the macro that says when the front end stops waiting for the scan, in seconds since 1970.
const MacroDeadline = "deadline"
