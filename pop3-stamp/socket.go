package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"postern/internal/percent"
	"postern/internal/sockspec"
)

const (
	maxRequest      = 2048            // bytes of a request for a stamp, with its line end
	requestTime     = 5 * time.Second // for a request as a whole
	requestsAtATime = 1024
)

// checkSockets looks at the addresses of the stamp sockets: who asks is known at UNIX sockets alone.
func (s *settings) checkSockets() error {
	for _, text := range s.Stamps {
		spec, err := sockspec.Parse(text)
		if err == nil && spec.Network != "unix" {
			err = fmt.Errorf("%q is no UNIX socket, where it is known who asks", text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeStamp serves a program that has seen somebody log in and asks for a stamp. It does not hold up the loop that
// accepts: beyond what are served at a time, programs are refused.
func (srv *server) takeStamp(ctx context.Context, conn net.Conn) {
	if srv.requests.Add(1) > requestsAtATime {
		srv.requests.Add(-1)
		srv.log.Warn("request for a stamp refused", "error", "too many at a time")
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte("-ERR too many requests\n"))
		_ = conn.Close()
		return
	}
	srv.wg.Go(func() {
		defer srv.requests.Add(-1)
		srv.serveStamp(ctx, conn)
	})
}

// serveStamp answers one request.
func (srv *server) serveStamp(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	_ = conn.SetDeadline(time.Now().Add(requestTime))
	if ctx.Err() != nil {
		return
	}
	reply := "+OK"
	if err := srv.stampRequest(ctx, conn); err != nil {
		reply = "-ERR " + replyText(err.Error())
	}
	_, _ = conn.Write([]byte(reply + "\n"))
}

// stampRequest reads "add ADDRESS USER SERVER", the last two percent-encoded or "-", and writes the stamp.
func (srv *server) stampRequest(ctx context.Context, conn net.Conn) error {
	peer, err := sockspec.Peer(conn)
	if err != nil || !srv.mayStamp(peer.UID) {
		uid := int64(-1)
		if err == nil {
			uid = int64(peer.UID)
		}
		srv.log.Warn("request for a stamp refused", "uid", uid, "error", err)
		return errors.New("not allowed")
	}
	line, err := readLine(bufio.NewReaderSize(conn, maxRequest), maxRequest)
	if err != nil {
		return errors.New("no request")
	}
	words := strings.Split(line, " ")
	if len(words) < 2 || len(words) > 4 || words[0] != "add" {
		return errors.New("syntax: add ADDRESS [USER [SERVER]]")
	}
	addr, err := parseAddr(words[1])
	if err != nil {
		return err
	}
	user, server := argument(words, 2), argument(words, 3)
	if srv.store == nil {
		return errors.New("there is no place for stamps")
	}
	if err := srv.touch(ctx, addr, user, server); err != nil {
		return errors.New("the stamp was not written")
	}
	srv.log.Info("stamp by request", "client", addr.String(), "user", clip(user), "server", clip(server), "uid", peer.UID)
	return nil
}

func argument(words []string, i int) string {
	if i >= len(words) || words[i] == "-" {
		return ""
	}
	return percent.Decode(words[i])
}

// mayStamp reports whether a user may ask for stamps: root, our own, and those of the settings.
func (srv *server) mayStamp(uid uint32) bool {
	return uid == 0 || int64(uid) == int64(os.Geteuid()) || slices.Contains(srv.stampUsers, uid)
}
