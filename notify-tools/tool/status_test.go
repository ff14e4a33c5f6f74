package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"postern/internal/notify"
	"postern/internal/notify/listener"
	"postern/internal/testenv"
)

// TestStatusAndWords: what went wrong decides the exit status, and is said, a line each, as a terminal may get it.
func TestStatusAndWords(t *testing.T) {
	ctx, cancel := Within(1)
	defer cancel()
	testenv.Receive(t, "the end of the time", ctx.Done())
	for _, tt := range []struct {
		err    error
		status int
		said   string
	}{
		{nil, 0, ""},
		{ErrUnread, 141, ""},
		{fmt.Errorf("x: %w", context.Cause(ctx)), 124, "t: error: x: time is up\n"},
		{&listener.ServerError{Text: notify.TooSlow}, 2, "t: error: the daemon says \"*ERR too slow\"\n"},
		{listener.ErrProtocol, 76, "t: error: not the notification protocol\n"},
		{errors.New("gone\x1b\nand more"), 1, "t: error: gone\\x1b\nt: error: and more\n"},
	} {
		var said strings.Builder
		status := Run("t", &said, func() error { return nil }, func(io.Writer) error { return tt.err })
		if status != tt.status || said.String() != tt.said {
			t.Errorf("%v: status %d, %q; want %d, %q", tt.err, status, said.String(), tt.status, tt.said)
		}
	}
	var said strings.Builder
	if status := Run("t", &said, func() error { return errors.New("no") }, nil); status != 64 || !strings.Contains(said.String(), "hint: t --help") {
		t.Errorf("a wrong command line: status %d, %q", status, said.String())
	}
}
