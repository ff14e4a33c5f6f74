package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"postern/internal/mxproto"
)

func (t *tool) health(ctx context.Context) (h mxproto.Health, ok bool, err error) {
	return mxproto.AskHealth(ctx, t.client.ask)
}

// showHealth puts what is wrong before the status and how many workers work behind its first line.
func showHealth(h mxproto.Health, status string) string {
	max, workers, _ := strings.Cut(status, "\n")
	var b strings.Builder
	if h.Fault != "" {
		fmt.Fprintf(&b, "Fault: %s (for %s)\n", h.Fault, age(h.Since))
	}
	if why, failed := strings.CutPrefix(h.Reread, "failed "); failed {
		fmt.Fprintf(&b, "Reread failed: %s\n", why)
	}
	fmt.Fprintf(&b, "%s\nWorking: %d\n%s", max, h.Working, workers)
	return b.String()
}

// healthJSON puts the same into the JSON object of jsonstatus.
func healthJSON(h mxproto.Health, object string) string {
	more := fmt.Sprintf(`,"working": %d`, h.Working)
	if h.Fault != "" {
		more += fmt.Sprintf(`,"fault": %s,"fault_seconds": %d`, quote(h.Fault), h.Since)
	}
	if h.Reread != "" {
		more += fmt.Sprintf(`,"reread": %s`, quote(h.Reread))
	}
	return strings.TrimSuffix(object, "}") + more + "}"
}

// withHealth adds to the outcome of a status what the multiplexor says beyond it.
func (t *tool) withHealth(line string, o outcome) outcome {
	add := map[string]func(mxproto.Health, string) string{"status": showHealth, "jsonstatus": healthJSON}[line]
	if add == nil || o.failed {
		return o
	}
	if h, ok, err := t.health(context.Background()); err == nil && ok {
		o.text = add(h, o.text)
	}
	return o
}

// rereadPoll is the time between questions whether a reread is through.
const rereadPoll = 100 * time.Millisecond

// rereadWait asks for a reread and waits for what becomes of it.
func (t *tool) rereadWait(timeout time.Duration) int {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the reread is not through within %v", timeout))
		defer cancel()
	}
	why, err := t.reread(ctx)
	switch {
	case ctx.Err() != nil:
		fmt.Fprint(t.err, errorLine(context.Cause(ctx)))
	case err != nil:
		fmt.Fprint(t.err, errorLine(err))
	case why != "":
		fmt.Fprintf(t.err, "ERROR Reread of filter rules failed: %s\n", why)
	default:
		fmt.Fprintln(t.out, "New filter rules are in force")
		return exitOK
	}
	return exitError
}

func (t *tool) reread(ctx context.Context) (failed string, err error) {
	before, ok, err := t.health(ctx)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", errors.New("this multiplexor does not tell what becomes of a reread")
	}
	reply, err := t.client.ask(ctx, mxproto.VerbReread)
	if err != nil {
		return "", err
	}
	if mxproto.IsError(reply) || reply == "" {
		return strings.TrimSpace(reply) + " (as the multiplexor says)", nil
	}
	for {
		h, ok, err := t.health(ctx)
		switch {
		case err != nil:
			return "", err
		case !ok || h.Rereads < before.Rereads:
			return "", errors.New("the multiplexor was started anew meanwhile")
		case h.Rereads > before.Rereads && h.Reread == "done":
			return "", nil
		case h.Rereads > before.Rereads && strings.HasPrefix(h.Reread, "failed"):
			return strings.TrimSpace(strings.TrimPrefix(h.Reread, "failed")), nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(rereadPoll):
		}
	}
}
