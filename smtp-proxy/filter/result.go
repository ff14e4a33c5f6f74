package filter

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/header"
)

// HoldField is on top of a message that is held, with the reason that the filter gave.
const HoldField = "X-Postern-Hold"

// Result is what became of a message: it is refused, thrown away, or goes on, as the filter made it.
type Result struct {
	Refusal  *smtp.Reply   // the message is refused
	Discard  bool          // it is taken, and goes to nobody
	Hold     string        // why it is to be held back; "" if it is not
	Envelope Envelope      // with which it goes on
	Err      error         // the filter failed; what is done then was decided by OnFailure
	Took     time.Duration // the scan
	Unknown  []string      // what was not understood of the filter's wishes
	Ignored  []string      // what was understood, and cannot be

	message   *Message
	body      io.Reader
	changes   []workdir.Change
	scannedBy string
}

// failed is the result when the filter did not do its part: refused, or as it was without the filter.
func (r *Result) failed(err error, refusal *smtp.Reply) *Result {
	r.Err, r.Refusal = err, refusal
	return r
}

// carryOut does what RESULTS says.
func (r *Result) carryOut(results *workdir.Results) {
	r.Unknown = results.Skipped
	switch results.Verdict {
	case workdir.Reject, workdir.TempFail:
		r.Refusal = refusal(results.Code, results.DSN, results.Text)
		return
	case workdir.Discard:
		r.Discard = true
		return
	}
	if err := r.change(results); err != nil {
		// Nor can the message go on unscanned: half of its changes would be lost.
		no := r.message.filter.OnFailure.Scan.refusal(r.message.client.Session)
		if no == nil {
			no = notNow(r.message.client.Session)
		}
		r.failed(err, no)
		return
	}
	r.Discard = len(r.Envelope.Rcpts) == 0 // all recipients were deleted: delivered to nobody
}

// change changes envelope and content.
func (r *Result) change(results *workdir.Results) error {
	if results.NewBody { // it may be empty: then the message is to have none
		body, err := r.message.dir.NewBody()
		if err != nil {
			return err
		}
		r.body = body
	}
	ignored, err := r.Envelope.apply(results.Changes)
	r.Ignored = ignored
	if err != nil {
		return err
	}
	r.changes, r.scannedBy = results.Changes, r.message.filter.ScannedBy
	if r.Hold = results.Hold; r.Hold != "" {
		r.changes = append(r.changes, workdir.Change{Letter: workdir.ResultInsertField, Name: HoldField, Value: r.Hold})
	}
	return nil
}

// Close gives back what was opened for the result.
func (r *Result) Close() {
	if c, ok := r.body.(io.Closer); ok {
		_ = c.Close()
	}
}

// header returns the header as it goes on: the proxy's Received field on top, then the filter's changes in
// their order on what is there, then what the settings want.
func (r *Result) header(received []byte, dropReceived bool) header.Header {
	h := r.message.header.With(received)
	for _, c := range r.changes {
		edit(&h, c)
	}
	if r.scannedBy != "" {
		h.Add("X-Scanned-By", r.scannedBy)
	}
	if dropReceived {
		h.RemoveAll(header.ReceivedName)
	}
	return h
}

// edit carries out one change of the header.
func edit(h *header.Header, c workdir.Change) {
	switch c.Letter {
	case workdir.ResultAddField:
		h.Add(c.Name, c.Value)
	case workdir.ResultInsertField:
		h.Insert(c.Name, c.Index, c.Value)
	case workdir.ResultChangeField:
		h.Change(c.Name, c.Index, c.Value)
	case workdir.ResultDeleteField:
		h.Remove(c.Name, c.Index)
	case workdir.ResultContentType:
		if c.Value != "" {
			h.Change("Content-Type", 1, c.Value)
		}
		if h.Count("MIME-Version") == 0 {
			h.Add("MIME-Version", "1.0")
		}
	}
}

// WriteContent writes the content as it goes on, with received, if it is not nil, as the proxy's own field on
// top; line ends of the body are those that it has. When it fails with an error that wraps
// [workdir.ErrChanged], nothing of the message may go on.
func (r *Result) WriteContent(w io.Writer, received []byte, dropReceived bool) error {
	piece := pieces.Get().(*[64 << 10]byte)
	defer pieces.Put(piece)
	h := r.header(received, dropReceived)
	if _, err := w.Write(h.AppendTo(piece[:0])); err != nil {
		return err
	}
	return copyBody(w, r.body, piece[:])
}

// pieces has buffers for content on its way.
var pieces = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func copyBody(w io.Writer, body io.Reader, piece []byte) error {
	for {
		n, err := body.Read(piece)
		if n > 0 {
			if _, err := w.Write(piece[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
	}
}
