package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/internal/mxproto"
)

// health is what a multiplexor of our own says beyond the original's status.
type health struct {
	working int    // workers that have answered
	rereads int    // since the start
	reread  string // what became of the last one: "", "running", "done", or "failed" and why
	fault   string // what workers die of; "" = nothing is wrong
	since   int64  // seconds ago
}

// health asks for it. ok is false if the multiplexor is the original, which would give
// the question to a worker.
func (t *tool) health(ctx context.Context) (h health, ok bool, err error) {
	version, err := t.client.ask(ctx, "version")
	if err != nil || !strings.HasPrefix(version, ourVersion) {
		return h, false, err
	}
	reply, err := t.client.ask(ctx, "health")
	if err != nil {
		return h, false, err
	}
	h, ok = parseHealth(reply)
	return h, ok, nil
}

// ourVersion is how the version of a multiplexor of this suite begins.
const ourVersion = "postern"

// parseHealth reads lines of a name and a value. Names it does not know are passed over.
func parseHealth(reply string) (h health, ok bool) {
	for line := range strings.Lines(reply) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.Atoi(value)
		switch name {
		case "Working":
			h.working, ok = n, err == nil
		case "Rereads":
			h.rereads = n
		case "Reread":
			h.reread = value
		case "Fault":
			h.fault = value
		case "FaultAge":
			h.since = int64(n)
		}
	}
	return h, ok
}

// show puts what is wrong before the status and how many workers work behind its first line.
func (h health) show(status string) string {
	max, workers, _ := strings.Cut(status, "\n")
	var b strings.Builder
	if h.fault != "" {
		fmt.Fprintf(&b, "Fault: %s (for %s)\n", h.fault, age(h.since))
	}
	if why, failed := strings.CutPrefix(h.reread, "failed "); failed {
		fmt.Fprintf(&b, "Reread failed: %s\n", why)
	}
	fmt.Fprintf(&b, "%s\nWorking: %d\n%s", max, h.working, workers)
	return b.String()
}

// json puts the same into the JSON object of jsonstatus.
func (h health) json(object string) string {
	more := fmt.Sprintf(`,"working": %d`, h.working)
	if h.fault != "" {
		more += fmt.Sprintf(`,"fault": %s,"fault_seconds": %d`, quote(h.fault), h.since)
	}
	if h.reread != "" {
		more += fmt.Sprintf(`,"reread": %s`, quote(h.reread))
	}
	return strings.TrimSuffix(object, "}") + more + "}"
}

// withHealth adds to the outcome of a status what the multiplexor says beyond it.
func (t *tool) withHealth(line string, o outcome) outcome {
	add := map[string]func(health, string) string{"status": health.show, "jsonstatus": health.json}[line]
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
	reply, err := t.client.ask(ctx, "reread")
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
		case !ok || h.rereads < before.rereads:
			return "", errors.New("the multiplexor was started anew meanwhile")
		case h.rereads > before.rereads && h.reread == "done":
			return "", nil
		case h.rereads > before.rereads && strings.HasPrefix(h.reread, "failed"):
			return strings.TrimSpace(strings.TrimPrefix(h.reread, "failed")), nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(rereadPoll):
		}
	}
}
