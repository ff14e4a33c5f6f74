package tool

import (
	"context"
	"errors"
	"syscall"
	"time"

	"postern/internal/notify/listener"
)

// Exit statuses of the tools.
const (
	exitDone     = 0
	ExitLost     = 1   // the connection was lost, and connecting again was not wanted
	exitRefused  = 2   // the daemon said *ERR
	exitUsage    = 64  // EX_USAGE of sysexits(3)
	exitProtocol = 76  // EX_PROTOCOL: the other end speaks something else
	exitTimeout  = 124 // as timeout(1)

	// ExitUnread is what a shell says of a program that SIGPIPE ended.
	ExitUnread = 128 + int(syscall.SIGPIPE)
)

var (
	// ErrUnread says that nobody reads standard output any more.
	ErrUnread = errors.New("nobody reads standard output")

	errTimeout = errors.New("time is up")
)

// Within returns a context that ends when the tool's time is up; 0 is no limit.
func Within(limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeoutCause(context.Background(), limit, errTimeout)
}

// exitStatus returns the exit status for the error with which a tool ended.
func exitStatus(err error) int {
	var server *listener.ServerError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, ErrUnread):
		return ExitUnread
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.As(err, &server):
		return exitRefused
	case errors.Is(err, listener.ErrProtocol):
		return exitProtocol
	}
	return ExitLost
}
