package main

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"
)

// errNoPage says that there is no such page.
var errNoPage = errors.New("no such page")

// heartbeat is how often an open page hears of us when nothing changes, so that it and we notice when the other is gone.
const heartbeat = 15 * time.Second

// page answers with a page, or with the stream that keeps it up to date.
func (srv *server) page(v *view) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := srv.pages.fill(v, r)
		switch {
		case !ok:
			http.Error(w, "No such daemon is watched.", http.StatusNotFound)
		case strings.Contains(r.Header.Get("Accept"), "text/event-stream"):
			srv.stream(v, w, r)
		default:
			var b bytes.Buffer
			if err := srv.pages.templates[v.name].ExecuteTemplate(&b, "base.html", c); err != nil {
				srv.log.Error("page", "name", v.name, "error", err)
				http.Error(w, "The page could not be made.", http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write(b.Bytes()) // who does not read it has left
		}
	})
}

// stream sends a page again each time that it has changed, until the browser leaves, does not read, or
// who may look is another question since a reload: it connects again, and is asked.
func (srv *server) stream(v *view, w http.ResponseWriter, r *http.Request) {
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
		main, err := srv.pages.main(v, r)
		var piece []byte
		switch {
		case err != nil:
			srv.log.Error("page", "name", v.name, "error", err)
			return
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
	}
}

// event is a text as an event of a stream: each line of it is one of the data. A carriage return would end a line, too.
func event(text []byte) []byte {
	text = bytes.ReplaceAll(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"), []byte(" "))
	return append(append([]byte("data: "), bytes.ReplaceAll(text, []byte("\n"), []byte("\ndata: "))...), "\n\n"...)
}
