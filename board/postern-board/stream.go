package main

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"
)

// heartbeat is how often an open page hears of us when nothing changes, so that it and we notice when the other is gone.
const heartbeat = 15 * time.Second

// page answers with a page, or with the stream that keeps it up to date.
func (srv *server) page(v *view) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
			srv.stream(v, w, r)
			return
		}
		text, err := srv.pages.render(v, "base.html", r)
		if err != nil {
			srv.noPage(v, w, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(text) // who does not read it has left
	})
}

// noPage answers when a page could not be made.
func (srv *server) noPage(v *view, w http.ResponseWriter, err error) {
	if errors.Is(err, errNoPage) {
		http.Error(w, "No such daemon is watched.", http.StatusNotFound)
		return
	}
	srv.log.Error("page", "name", v.name, "error", err)
	http.Error(w, "The page could not be made.", http.StatusInternalServerError)
}

// stream sends a page again each time that it has changed, until the browser leaves, does not read, or
// who may look is another question since a reload: it connects again, and is asked.
func (srv *server) stream(v *view, w http.ResponseWriter, r *http.Request) {
	main, err := srv.pages.main(v, r)
	if err != nil {
		srv.noPage(v, w, err)
		return
	}
	control := http.NewResponseController(w)
	srv.meters.viewers.Add(1)
	defer srv.meters.viewers.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx
	tick := time.NewTicker(v.every)
	defer tick.Stop()
	var last []byte
	said := time.Now()
	for {
		var piece []byte
		switch {
		case !bytes.Equal(main, last):
			piece = event(main)
		case time.Since(said) > heartbeat:
			piece = []byte(":\n\n")
		}
		if piece != nil {
			_ = control.SetWriteDeadline(time.Now().Add(srv.patience))
			_, err := w.Write(piece)
			if err == nil {
				err = control.Flush()
			}
			if err != nil {
				if r.Context().Err() == nil {
					srv.meters.slow.Inc()
				}
				return
			}
			last, said = main, time.Now()
		}
		select {
		case <-tick.C:
			if srv.access.Load() != r.Context().Value(accessKey{}) {
				return
			}
		case <-r.Context().Done():
			return
		case <-srv.ending:
			return
		}
		if main, err = srv.pages.main(v, r); err != nil {
			srv.log.Error("page", "name", v.name, "error", err)
			return
		}
	}
}

// event is a text as an event of a stream: each line of it is one of the data. A carriage return would end a line, too.
func event(text []byte) []byte {
	text = bytes.ReplaceAll(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"), []byte(" "))
	return append(append([]byte("data: "), bytes.ReplaceAll(text, []byte("\n"), []byte("\ndata: "))...), "\n\n"...)
}
