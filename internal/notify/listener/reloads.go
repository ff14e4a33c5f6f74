package listener

import (
	"context"
	"fmt"

	"postern/internal/notify"
)

// Reloads listens to the daemon at a socket and returns what waits for the text of its next R message, and may be called
// again. All that the daemon says from now on is heard.
func Reloads(ctx context.Context, spec string) (next func() (string, error), err error) {
	source, err := ParseSource(spec)
	if err != nil {
		return nil, err
	}
	c, err := Connect(ctx, source, Interest{Letters: string(notify.LetterReread)})
	if err != nil {
		return nil, err
	}
	until := func(kind Kind) (string, error) {
		for {
			switch e, err := c.Next(ctx); {
			case err != nil:
				c.Close()
				return "", err
			case e.Kind == Up && !e.Extended:
				c.Close()
				return "", fmt.Errorf("%w: no snapshot", ErrProtocol)
			case e.Kind == kind:
				return e.Text, nil
			}
		}
	}
	if _, err := until(Live); err != nil {
		return nil, err
	}
	return func() (string, error) { return until(Happened) }, nil
}
