package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"postern/internal/notify"
	"postern/internal/percent"
	"postern/internal/stamp"
	"postern/internal/store"
)

// maxEventUser is how much of a user's name an event shows, in bytes.
const maxEventUser = 64

// place is where stamps are.
type place struct {
	stamp.Store
	shared *stamp.Shared // nil for a directory, of which nobody but we tells what happens
	client *store.Client // of shared
}

// openPlace opens the place for stamps; nil if there is none. options are those of the shared store, nil for a
// directory.
func (s *settings) openPlace(options *store.Options, log *slog.Logger) (*place, error) {
	switch {
	case options != nil:
		client := store.Open(options, log)
		shared := stamp.NewShared(client, s.ClientipMaxage, s.ClientipIPv6Prefix)
		return &place{shared, shared, client}, nil
	case s.ClientipDir == "":
		return nil, nil
	}
	dir, err := stamp.OpenDir(s.ClientipDir, s.ClientipMaxage, "")
	if err != nil {
		return nil, err
	}
	dir.IPv6 = s.ClientipIPv6Prefix
	return &place{Store: dir}, nil
}

func (p *place) close() {
	if p != nil && p.client != nil {
		_ = p.client.Close()
	}
}

// counts is what became of requests to the shared store; nil without one.
func (p *place) counts() func() store.Counts {
	if p == nil || p.client == nil {
		return nil
	}
	return p.client.Counts
}

// touch writes the stamp of a client that has logged in. Mail can be fetched without one, so failure is only
// logged; of a shared store that does not answer the store itself says so.
func (srv *server) touch(ctx context.Context, addr netip.Addr, user, server string) error {
	if srv.store == nil || !addr.IsValid() {
		return nil
	}
	shared := srv.store.shared != nil
	if !shared {
		srv.stamps.Lock()
		defer srv.stamps.Unlock()
	}
	if err := srv.store.Touch(ctx, addr, user, server); err != nil {
		srv.meters.stampFailed()
		if !errors.Is(err, store.ErrDown) {
			srv.log.Error("stamp not written", "client", addr.String(), "error", err)
		}
		return err
	}
	srv.meters.stamp("written")
	if !shared {
		srv.tell(stamp.Event{Name: srv.store.Name(addr), User: user})
	}
	return nil
}

// tell has listeners hear what happened to a stamp.
func (srv *server) tell(e stamp.Event) {
	m := notify.Message{Letter: notify.LetterStamp, Text: e.Name + " " + userWord(e.User)}
	if e.Gone {
		m = notify.Message{Letter: notify.LetterStampGone, Text: e.Name}
	}
	srv.hub.Publish(m)
}

// watch tells listeners what happens to stamps in a shared store, at whichever gateway.
func (srv *server) watch(ctx context.Context) {
	if srv.store == nil || srv.store.shared == nil {
		return
	}
	heard := false
	srv.store.shared.Watch(ctx, srv.tell, func(hears bool) {
		switch {
		case ctx.Err() != nil:
		case !hears:
			srv.log.Warn("events of stamps are not heard for now")
		case heard:
			srv.log.Info("events of stamps are heard again")
		}
		heard = true
	})
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
func (srv *server) revoke(ctx context.Context, addr netip.Addr) {
	if srv.store == nil || !addr.IsValid() {
		return
	}
	gone, err := srv.store.Remove(ctx, addr)
	if err != nil && !errors.Is(err, store.ErrDown) {
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
	_, fresh, err := srv.store.Look(ctx, addr)
	return err == nil && !fresh
}

// gone tells listeners that a stamp was removed. If somebody has logged in from there meanwhile, they have
// heard of the new stamp, and must not take it for the one that is gone.
func (srv *server) gone(addr netip.Addr) {
	if srv.store.shared != nil {
		return // the store tells it, in the order of what happened
	}
	srv.stamps.Lock()
	defer srv.stamps.Unlock()
	if _, fresh, err := srv.store.Look(context.Background(), addr); err == nil && fresh {
		return
	}
	srv.tell(stamp.Event{Gone: true, Name: srv.store.Name(addr)})
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
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrDown) {
			srv.log.Error("old stamps not removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
