package hub

import (
	"fmt"
	"log/slog"

	"postern/internal/sockspec"
)

// Access is what every daemon lets its administrator say about listeners. It is
// embedded in the daemon's settings.
type Access struct {
	NotifyUsers []string `name:"notify-users" sep:"none" placeholder:"NAME" help:"User who may listen on a UNIX notification socket; may be given several times. Default: all that can connect."`
	NotifyLimit int      `name:"notify-limit" default:"10000" placeholder:"N" help:"Most listeners at a time."`
}

// Options are those of a hub with this access, which publishes the given
// letters.
func (a Access) Options(letters string, log *slog.Logger) (Options, error) {
	o := Options{Letters: letters, MaxListeners: a.NotifyLimit, Log: log}
	if a.NotifyLimit < 1 {
		return Options{}, fmt.Errorf("notify-limit %d: below one", a.NotifyLimit)
	}
	var err error
	if o.Users, err = sockspec.Users("notify-users", a.NotifyUsers); err != nil {
		return Options{}, err
	}
	return o, nil
}
