package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/printable"
)

// noStatus is the outcome for a reply that is no status.
func noStatus(reply string) outcome {
	return outcome{text: "ERROR " + reply, failed: true, stderr: true}
}

func showStatus(reply string) outcome {
	s, ok := mxproto.ParseStatus(reply)
	if !ok {
		return noStatus(reply)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Max workers: %d\n", len(s.Letters))
	for i := range len(s.Letters) {
		state := mxproto.StateNames[s.Letters[i]]
		if state == "" {
			state = "unknown state '" + s.Letters[i:i+1] + "'"
		}
		fmt.Fprintf(&b, "Worker %d: %s\n", i, state)
	}
	return outcome{text: b.String()}
}

// The widest bars. A pool or queue that is larger is drawn to scale.
const (
	maxWorkerCells = 25
	maxQueueCells  = 20
)

func showBar(reply string) outcome {
	s, ok := mxproto.ParseStatus(reply)
	if !ok {
		return noStatus(reply)
	}
	busy, slots := int64(strings.Count(s.Letters, "B")), int64(len(s.Letters))
	line := fmt.Sprintf("%3d/%d %s", busy, slots, bar('B', busy, slots, maxWorkerCells))
	if s.QueueSize == 0 {
		line += fmt.Sprintf(" %d\n", s.Messages)
	} else {
		line += fmt.Sprintf("  %3d/%d %s %d\n", s.Queued, s.QueueSize, bar('Q', s.Queued, s.QueueSize, maxQueueCells), s.Messages)
	}
	return outcome{text: line}
}

// bar draws used of size: a cell for each, or limit cells if there are more. The
// numbers are narrow ones, as in md-mx-ctrl, so that both round in the same way.
func bar(mark byte, used, size, limit int64) string {
	cells, full := size, float32(used)
	if size > limit {
		cells, full = limit, float32(used)/float32(size)*float32(limit)
	}
	b := make([]byte, max(cells, 0))
	for i := range b {
		b[i] = '.'
		if float32(i) < full {
			b[i] = mark
		}
	}
	return string(b)
}

// jsonHead opens a JSON object with what both JSON outputs begin with. The
// spaces are uneven as in md-mx-ctrl.
func jsonHead() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf(`{"timestamp": %s,"hostname": %s`, quote(time.Now().Format(time.ANSIC)), quote(host))
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // a string always can be
		return `""`
	}
	return string(printable.JSON(b))
}

func showJSONStatus(reply string) outcome {
	s, ok := mxproto.ParseStatus(reply)
	if !ok {
		return noStatus(reply)
	}
	var b strings.Builder
	b.WriteString(jsonHead())
	for i := range len(s.Letters) {
		state := mxproto.StateNames[s.Letters[i]]
		if state == "" {
			state = "unknown state '" + s.Letters[i:i+1] + "'"
		}
		fmt.Fprintf(&b, `,"Worker%d": %s`, i, quote(state))
	}
	b.WriteString("}")
	return outcome{text: b.String()}
}
