package main

import (
	"context"
	"net/netip"
	"time"

	"postern/internal/notify"
	"postern/internal/percent"
	"postern/internal/stamp"
)

// maxEventUser is how much of a user's name an event shows, in bytes.
const maxEventUser = 64

// touch writes the stamp of a client that has logged in. Mail can be fetched without one, so failure is only logged.
func (srv *server) touch(ctx context.Context, addr netip.Addr, user, server string) {
	if srv.store == nil || !addr.IsValid() {
		return
	}
	if err := srv.store.Touch(ctx, addr, user, server); err != nil {
		srv.meters.stampFailed()
		srv.log.Error("stamp not written", "client", addr.String(), "error", err)
		return
	}
	srv.meters.stamp("written")
	word := percent.Encode(user[:min(len(user), maxEventUser)])
	if word == "" {
		word = "-"
	}
	srv.hub.Publish(notify.Message{Letter: 'P', Text: stamp.Name(addr) + " " + word})
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

func (srv *server) gone(addr netip.Addr) {
	srv.hub.Publish(notify.Message{Letter: 'X', Text: stamp.Name(addr)})
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
