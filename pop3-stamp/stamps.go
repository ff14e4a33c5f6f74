package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"postern/internal/notify"
	"postern/internal/percent"
	"postern/internal/stamp"
)

// maxEventUser is how much of a user's name an event shows, in bytes.
const maxEventUser = 64

// touch writes the stamp of a client that has logged in. Mail can be fetched without one, so failure is only
// logged.
func (srv *server) touch(ctx context.Context, addr netip.Addr, user, server string) {
	if srv.store == nil || !addr.IsValid() {
		return
	}
	srv.stamps.Lock()
	defer srv.stamps.Unlock()
	if err := srv.store.Touch(ctx, addr, user, server); err != nil {
		srv.meters.stampFailed()
		srv.log.Error("stamp not written", "client", addr.String(), "error", err)
		return
	}
	srv.meters.stamp("written")
	srv.hub.Publish(notify.Message{Letter: notify.LetterStamp, Text: stamp.Name(addr) + " " + userWord(user)})
}

// wrongPassword tells listeners of a login that failed.
func (srv *server) wrongPassword(s *session, mechanism string) {
	srv.hub.Publish(notify.Message{Letter: notify.LetterWrongLogin, Text: fmt.Sprintf("%d %s %s %s", s.id, s.clientText(), mechanism, userWord(s.user))})
}

// userWord is the name of a user as events show it.
func userWord(user string) string {
	if user == "" {
		return "-"
	}
	return percent.Encode(user[:min(len(user), maxEventUser)])
}

// revoke removes the stamp of a client.
func (srv *server) revoke(addr netip.Addr) {
	if srv.store == nil || !addr.IsValid() {
		return
	}
	gone, err := srv.store.Revoke(addr)
	if err != nil {
		srv.log.Error("stamp not removed", "client", addr.String(), "error", err)
	}
	if gone {
		srv.meters.stamp("revoked")
		srv.gone(addr)
	}
}

// revoked reports whether the stamp of a client that has logged in at a time was removed since, and not
// because of its age: by "pop3-stamp revoke".
func (srv *server) revoked(ctx context.Context, addr netip.Addr, since time.Time) bool {
	if srv.store == nil || !addr.IsValid() || srv.conf.StampOnConnect != "keep" || time.Since(since) >= srv.conf.ClientipMaxage {
		return false
	}
	fresh, err := srv.store.Fresh(ctx, addr)
	return err == nil && !fresh
}

// gone tells listeners that a stamp was removed. If somebody has logged in from there meanwhile, they have
// heard of the new stamp, and must not take it for the one that is gone.
func (srv *server) gone(addr netip.Addr) {
	srv.stamps.Lock()
	defer srv.stamps.Unlock()
	if fresh, err := srv.store.Fresh(context.Background(), addr); err == nil && fresh {
		return
	}
	srv.hub.Publish(notify.Message{Letter: notify.LetterStampGone, Text: stamp.Name(addr)})
}

// sweep removes stamps when they are not fresh any more, so that listeners hear of it.
func (srv *server) sweep(ctx context.Context) {
	if srv.store == nil || srv.conf.ExpireInterval == 0 {
		return
	}
	tick := time.NewTicker(srv.conf.ExpireInterval)
	defer tick.Stop()
	for {
		err := srv.store.Expire(ctx, srv.conf.ClientipMaxage, func(addr netip.Addr) {
			srv.meters.stamp("expired")
			srv.gone(addr)
		})
		if err != nil && ctx.Err() == nil {
			srv.log.Error("old stamps not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
