package main

import (
	"context"
	"io"

	"postern/internal/mxproto"
	"postern/internal/smtp"
	"postern/internal/workdir"
	"postern/smtp-proxy/header"
)

// filterSink puts a message into its working directory, has it scanned, and sends on what the filter
// made of it.
type filterSink struct {
	s    *session
	tx   *transaction
	size int64
	err  error
	w    io.Writer
}

func newFilterSink(s *session, tx *transaction) *filterSink {
	k := &filterSink{s: s, tx: tx}
	k.w, k.err = tx.dir.Content()
	return k
}

func (k *filterSink) Write(p []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	k.size += int64(len(p))
	return k.w.Write(p)
}

func (k *filterSink) abort() { k.s.relay.letGo(broken) }

// finish scans the message and carries the results out.
func (k *filterSink) finish() smtp.Reply {
	s, tx := k.s, k.tx
	if k.err == nil {
		k.err = tx.dir.Finish()
	}
	if k.err != nil {
		return *s.contentRefusal(k.err)
	}
	if cost := headerCopies * tx.dir.HeaderSize(); s.srv.memory.take(cost) {
		defer s.srv.memory.give(cost)
	} else {
		return noMemory
	}
	m, err := readMessage(tx.dir)
	if err != nil {
		return *s.contentRefusal(err)
	}
	defer m.close()
	if m.header.Count(header.ReceivedName) > s.conf.MaxHops {
		return headerRefusal(header.ErrHops)
	}
	f := s.filtering()
	if f == nil || !f.stages.scan {
		return s.deliver(tx, m, nil)
	}
	s.status("FILTER")
	results, r := s.scan(f, tx)
	if r != nil {
		return *r
	}
	if results == nil {
		return s.deliver(tx, m, nil)
	}
	return s.carryOut(f, tx, m, results)
}

// scan asks for the scan and reads RESULTS. A reply is the end of the message; neither means that it
// goes on unscanned by policy.
func (s *session) scan(f *filter, tx *transaction) (*workdir.Results, *smtp.Reply) {
	ctx, cancel := context.WithTimeout(s.background(), f.timeout)
	defer cancel()
	answer, err := f.client.Ask(ctx, mxproto.Scan{QID: tx.qid, Dir: tx.dir.Path()}.Line())
	if err != nil {
		// No answer does not mean that no worker is busy in there.
		tx.dir.Abandon()
	} else {
		err = mxproto.ParseScan(answer)
	}
	var results *workdir.Results
	if err == nil {
		results, err = tx.dir.Results()
	}
	if err == nil {
		for _, skipped := range results.Skipped {
			s.srv.log.Warn("filter's wish is not understood", "session", s.id, "qid", tx.qid, "line", clip(skipped))
		}
		return results, nil
	}
	tx.dir.Keep(err.Error())
	v := s.filterFailed(f, err)
	if v.Action == mxproto.Continue {
		return nil, nil
	}
	return nil, verdictReply(v.Code, v.DSN, v.Text)
}

// carryOut does what RESULTS says.
func (s *session) carryOut(f *filter, tx *transaction, m *message, results *workdir.Results) smtp.Reply {
	switch results.Verdict {
	case workdir.Reject, workdir.TempFail:
		s.srv.metrics.gate(gateFilter)
		tx.gate = gateFilter
		return *verdictReply(results.Code, results.DSN, results.Text)
	case workdir.Discard:
		return (&voidSink{tx}).finish()
	}
	if results.NewBody {
		if err := m.replaceBody(tx.dir); err != nil {
			tx.dir.Keep(err.Error())
			v := s.filterFailed(f, err)
			return *verdictReply(orTemporary(v))
		}
	}
	env, ignored, err := changeEnvelope(tx, results.Changes)
	for _, why := range ignored {
		s.srv.log.Warn("filter's wish is not carried out", "session", s.id, "qid", tx.qid, "reason", clip(why))
	}
	if err != nil {
		tx.dir.Keep(err.Error())
		v := s.filterFailed(f, err)
		return *verdictReply(orTemporary(v))
	}
	if len(env.rcpts) == 0 {
		return (&voidSink{tx}).finish() // all recipients were deleted: delivered to nobody
	}
	m.changes, m.scannedBy = results.Changes, f.scannedBy
	if results.Hold != "" {
		return s.hold(tx, m, env, results.Hold)
	}
	return s.deliver(tx, m, env)
}

// orTemporary refuses for now what a policy of letting through cannot be applied to: a message half of
// whose changes are lost.
func orTemporary(v mxproto.Verdict) (code, dsn, text string) {
	if v.Action == mxproto.Continue {
		return "451", "4.3.0", "Message cannot be checked now, try again later"
	}
	return v.Code, v.DSN, v.Text
}
