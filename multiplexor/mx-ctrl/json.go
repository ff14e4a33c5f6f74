package main

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"time"

	"postern/internal/mxproto"
	"postern/internal/printable"
)

// jsonPool and jsonWorker are the form of top --json. A field that is not known is
// left out.
type jsonPool struct {
	Time        string       `json:"time"`
	Uptime      int64        `json:"uptime_seconds"`
	Messages    int64        `json:"messages"`
	Activations int64        `json:"activations"`
	QueueSize   int64        `json:"queue_size"`
	Queued      int64        `json:"queued_requests"`
	Workers     []jsonWorker `json:"workers"`
}

type jsonWorker struct {
	Slot   int      `json:"slot"`
	State  string   `json:"state"`
	PID    string   `json:"pid,omitempty"`
	For    int64    `json:"state_seconds"`
	Now    string   `json:"now,omitempty"`
	Last   string   `json:"last,omitempty"`
	Tag    string   `json:"doing,omitempty"`
	Memory *int64   `json:"resident_bytes,omitempty"`
	CPU    *float64 `json:"cpu_seconds,omitempty"`
}

// runJSON prints all that top knows, of all workers, as one JSON object.
func runJSON(c client, std stdio) int {
	c.maxUsages = math.MaxInt
	s, err := c.take(context.Background())
	if err != nil {
		io.WriteString(std.err, errorLine(err))
		return exitError
	}
	pool := jsonPool{Time: s.at.Format(time.RFC3339), Uptime: s.status.Uptime, Messages: s.status.Messages, Activations: s.status.Activations,
		QueueSize: s.status.QueueSize, Queued: s.status.Queued, Workers: []jsonWorker{}}
	for _, w := range s.workers {
		j := jsonWorker{Slot: w.Slot, State: mxproto.StateNames[w.State], PID: w.PID, For: w.Ago, Now: w.Now, Last: w.Last, Tag: w.Tag}
		if u, ok := s.usage[w.Slot]; ok {
			memory, cpu := u.Memory<<10, u.CPU.Seconds()
			j.Memory, j.CPU = &memory, &cpu
		}
		pool.Workers = append(pool.Workers, j)
	}
	out := json.NewEncoder(printable.JSONWriter(std.out))
	if err := out.Encode(pool); err != nil {
		return exitError
	}
	return exitOK
}
