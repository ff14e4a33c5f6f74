package notify

import "errors"

// Exit statuses of the tools that listen.
const (
	ExitDone     = 0
	ExitLost     = 1   // the connection was lost, and connecting again was not wanted
	ExitRefused  = 2   // the daemon said *ERR
	ExitUsage    = 64  // EX_USAGE of sysexits(3)
	ExitProtocol = 76  // EX_PROTOCOL: the other end speaks something else
	ExitTimeout  = 124 // as timeout(1)
)

// ErrTimeout is the cause of a context that ends because a tool's time is up.
var ErrTimeout = errors.New("time is up")

// ExitStatus is the exit status for the error with which listening ended.
func ExitStatus(err error) int {
	var server *ServerError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrTimeout):
		return ExitTimeout
	case errors.As(err, &server):
		return ExitRefused
	case errors.Is(err, ErrProtocol):
		return ExitProtocol
	}
	return ExitLost
}
