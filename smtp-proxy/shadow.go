package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/mxproto"
	"postern/internal/sockspec"
	"postern/internal/workdir"
	"postern/smtp-proxy/filter"
)

// What came of messages that the shadow filter was to see, as a label of the metrics.
const (
	shadowSame    = "same"
	shadowDiffers = "differs"
	shadowFailed  = "failed"  // it gave no verdict
	shadowDropped = "dropped" // too many were waiting
)

var shadowOutcomes = []string{shadowSame, shadowDiffers, shadowFailed, shadowDropped}

// Bounds of what the shadow filter has to do: it sees so many messages at a time, and so many wait for it.
const (
	shadowAtOnce  = 4
	shadowWaiting = 16
	shadowBytes   = 256 << 20 // of all of these
)

// shadowPause is how long a multiplexor that is not there is left alone.
const shadowPause = time.Second

// shadow is a second filter. It is shown copies of messages that the first one has judged; its verdicts are compared, and
// never used. Nothing waits for it.
type shadow struct {
	filter  *filter.Filter
	mx      *mxproto.Client
	ignored []string // fields
	log     *slog.Logger
	waiting workdir.Backlog           // with what the first filter wants
	down    atomic.Bool               // the multiplexor was not there the last time
	counts  map[string]*atomic.Uint64 // by outcome
}

// newShadow makes the shadow of the filter first, which has the same spool.
func newShadow(s *settings, first *filter.Filter, log *slog.Logger) (*shadow, error) {
	spec, err := sockspec.Parse(s.ShadowMultiplexor)
	if err != nil {
		return nil, fmt.Errorf("shadow-multiplexor: %w", err)
	}
	h := &shadow{ignored: s.ShadowIgnore, log: log, counts: map[string]*atomic.Uint64{}}
	h.waiting.C = make(chan workdir.Waiting, shadowWaiting)
	h.mx = newMultiplexorClient(spec)
	h.filter = &filter.Filter{Multiplexor: h.mx, Spool: first.Spool, Timeout: s.FilterTimeout}
	for _, outcome := range shadowOutcomes {
		h.counts[outcome] = new(atomic.Uint64)
	}
	return h, nil
}

// offer shows the filter a message as soon as it can, or not at all. It does not wait; the files are closed in the end.
func (h *shadow) offer(qid string, files *workdir.Snapshot) {
	if !h.waiting.Offer(workdir.Waiting{QID: qid, Files: files}, shadowBytes) {
		h.counts[shadowDropped].Add(1)
	}
}

// start has the filter look at what is offered, until ctx ends.
func (h *shadow) start(ctx context.Context, running *sync.WaitGroup) {
	for range shadowAtOnce {
		running.Go(func() {
			for {
				select {
				case m := <-h.waiting.C:
					h.look(ctx, m)
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

// look shows the filter one message.
func (h *shadow) look(ctx context.Context, m workdir.Waiting) {
	differences, err := h.compare(ctx, m)
	h.waiting.Done(m)
	down := errors.Is(err, filter.ErrUnreachable)
	switch {
	case ctx.Err() != nil: // the proxy ends
		return
	case down:
		if !h.down.Swap(true) {
			h.log.Warn("shadow filter failed", "qid", m.QID, "error", err)
		}
		h.counts[shadowFailed].Add(1)
		select {
		case <-time.After(shadowPause):
		case <-ctx.Done():
		}
		return
	case h.down.Swap(false):
		h.log.Info("shadow filter is there again")
	}
	switch {
	case err != nil:
		h.log.Warn("shadow filter failed", "qid", m.QID, "error", err)
		h.counts[shadowFailed].Add(1)
	case len(differences) > 0:
		h.log.Warn("shadow filter differs", "qid", m.QID, "differences", strings.Join(differences, "; "))
		h.counts[shadowDiffers].Add(1)
	default:
		h.counts[shadowSame].Add(1)
	}
}

// compare says in what the filter's wishes are others than those of the first one.
func (h *shadow) compare(ctx context.Context, m workdir.Waiting) ([]string, error) {
	first, err := filter.WishesOf(m.Files, h.ignored)
	if err != nil {
		return nil, err
	}
	files, _, err := h.filter.Rescan(ctx, m.QID, m.Files)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	wishes, err := filter.WishesOf(files, h.ignored)
	if err != nil {
		return nil, err
	}
	return wishes.Differences(first), nil
}

// close gives back what the filter has, once nothing runs.
func (h *shadow) close() {
	if h == nil {
		return
	}
	h.mx.Close()
	for len(h.waiting.C) > 0 {
		h.waiting.Done(<-h.waiting.C)
	}
}
