package notify

import (
	"fmt"
	"log/slog"
	"os/user"
	"strconv"
)

// Access is what every daemon lets its administrator say about listeners. It is
// embedded in the daemon's settings.
type Access struct {
	NotifyUsers []string `name:"notify-users" sep:"none" placeholder:"NAME" help:"User who may listen on a UNIX notification socket; may be given several times. Default: all that can connect."`
	NotifyLimit int      `name:"notify-limit" default:"10000" placeholder:"N" help:"Most listeners at a time."`
}

// Options are those of a hub with this access, which publishes the given
// letters. A user is a name or a number; one that does not exist is an error.
func (a Access) Options(letters string, log *slog.Logger) (Options, error) {
	o := Options{Letters: letters, MaxListeners: a.NotifyLimit, Log: log}
	if a.NotifyLimit < 1 {
		return Options{}, fmt.Errorf("notify-limit %d: below one", a.NotifyLimit)
	}
	for _, name := range a.NotifyUsers {
		id := name
		if u, err := user.Lookup(name); err == nil {
			id = u.Uid
		}
		uid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return Options{}, fmt.Errorf("notify-users %q: no such user", name)
		}
		o.Users = append(o.Users, uint32(uid))
	}
	return o, nil
}
