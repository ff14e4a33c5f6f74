package mxproto

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Status is the reply to status.
type Status struct {
	Letters                   string // one for each slot: I B S K
	Messages, Activations     int64  // scans finished and processes started since the multiplexor started
	QueueSize, Queued, Uptime int64  // places in the queue, requests in it, seconds
}

// StateNames says what the letter of a slot means.
var StateNames = map[byte]string{'I': "idle", 'B': "busy", 'S': "stopped", 'K': "killed"}

// ParseStatus reads the reply to status. Only the first letter is looked at to
// tell it from an error text, as in md-mx-ctrl; numbers that are missing are 0.
func ParseStatus(reply string) (Status, bool) {
	if reply == "" || StateNames[reply[0]] == "" {
		return Status{}, false
	}
	var s Status
	var rest string
	s.Letters, rest, _ = strings.Cut(reply, " ")
	n := numbers{rest: rest}
	n.ints(&s.Messages, &s.Activations, &s.QueueSize, &s.Queued, &s.Uptime)
	return s, true
}

// Worker is one line of the reply to workers.
type Worker struct {
	Slot  int
	State byte   // I B S K
	PID   string // empty without a process
	Now   string // scan, relayok, senderok or recipok if it runs one of those
	Last  string // the last of those that it ran
	Ago   int64  // seconds since the state changed
	Tag   string // what it does, in its own words: not safe to show
}

// ParseWorkers reads the reply to workers. The original lets a worker put a line
// break into its tag: a line that is not that of the next slot belongs to the tag
// before it.
func ParseWorkers(reply string) ([]Worker, bool) {
	var all []Worker
	for line := range strings.Lines(reply) {
		line = strings.TrimSuffix(line, "\n")
		w, err := parseWorker(line)
		switch {
		case err == nil && w.Slot == len(all):
			all = append(all, w)
		case len(all) > 0 && all[len(all)-1].Tag != "":
			all[len(all)-1].Tag += "\n" + line
		default:
			return nil, false
		}
	}
	for i := range all {
		all[i].Tag = strings.TrimSuffix(all[i].Tag, ")")
	}
	return all, true
}

var errNoWorker = errors.New("not a line of workers")

// parseWorker reads one line: N LETTER[ PID][ CMD][ last=CMD] ago=SECS[ (TAG)].
// The tag keeps its closing parenthesis, which may come lines later.
func parseWorker(line string) (Worker, error) {
	line, tag, _ := strings.Cut(line, " (")
	words := strings.Fields(line)
	if len(words) < 3 || len(words[1]) != 1 || StateNames[words[1][0]] == "" {
		return Worker{}, errNoWorker
	}
	slot, err := strconv.Atoi(words[0])
	if err != nil {
		return Worker{}, errNoWorker
	}
	w := Worker{Slot: slot, State: words[1][0], Tag: tag, Ago: -1}
	for i, word := range words[2:] {
		switch key, value, assigned := strings.Cut(word, "="); {
		case assigned && key == "ago":
			if w.Ago, err = strconv.ParseInt(value, 10, 64); err != nil || w.Ago < 0 {
				return Worker{}, errNoWorker
			}
		case assigned && key == "last":
			w.Last = value
		case assigned: // something that a later multiplexor says
		case i == 0 && digitsLength(word) == len(word):
			w.PID = word
		default:
			w.Now = word
		}
	}
	if w.Ago < 0 {
		return Worker{}, errNoWorker
	}
	return w, nil
}

// LoadTable is the reply to load, hload or one of those for another command than scan: four rows.
type LoadTable struct {
	Count              [4]int64   // commands finished
	Busy, Milliseconds [4]float64 // on average: busy workers at their end, milliseconds
	Spans              [4]int64   // of hload: seconds from the first to the last
}

// ParseLoad reads the beginning of the reply to load or hload, with the spans of hload or without.
func ParseLoad(reply string, spans bool) (LoadTable, bool) {
	n := numbers{rest: reply}
	var l LoadTable
	for i := range l.Count {
		l.Count[i] = n.int()
	}
	for _, to := range []*[4]float64{&l.Busy, &l.Milliseconds} {
		for i := range to {
			to[i] = n.float()
		}
	}
	for i := range l.Spans {
		if spans {
			l.Spans[i] = n.int()
		}
	}
	return l, !n.bad
}

// RecentLoad is the reply to load1 N: commands in the order scan, relayok, senderok, recipok.
type RecentLoad struct {
	Commands                                         [4]CommandLoad
	Busy, Idle, Stopped, Killed                      int64
	Messages, Activations, QueueSize, Queued, Uptime int64
	Seconds                                          int64    // N
	Running                                          [4]int64 // of each command, now
}

// CommandLoad is how often one command ran in the last N seconds, with how many
// busy workers at its end and how many milliseconds on average.
type CommandLoad struct {
	Count              int64
	Busy, Milliseconds float64
}

// ParseRecentLoad reads the reply to load1.
func ParseRecentLoad(reply string) (RecentLoad, bool) {
	n := numbers{rest: reply}
	var l RecentLoad
	for i := range l.Commands {
		l.Commands[i] = CommandLoad{n.int(), n.float(), n.float()}
	}
	n.ints(&l.Busy, &l.Idle, &l.Stopped, &l.Killed)
	n.ints(&l.Messages, &l.Activations, &l.QueueSize, &l.Queued, &l.Uptime, &l.Seconds)
	for i := range l.Running {
		l.Running[i] = n.int()
	}
	return l, !n.bad
}

// Usage is what the process of a worker uses.
type Usage struct {
	Memory int64 // KiB
	CPU    time.Duration
}

// ParseUsage reads the end of a reply to workerinfo, which is that of the process
// pid or of no use.
func ParseUsage(reply, pid string) (u Usage, ok bool) {
	fields := map[string]string{}
	for line := range strings.Lines(reply) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		fields[name] = value
	}
	memory, err1 := strconv.ParseInt(fields["ResidentKB"], 10, 64)
	ms, err2 := strconv.ParseInt(fields["CPUMilliseconds"], 10, 64)
	if err1 != nil || err2 != nil || fields["PID"] != pid || memory < 0 || ms < 0 || ms > maxCPU {
		return Usage{}, false
	}
	return Usage{memory, time.Duration(ms) * time.Millisecond}, true
}

// maxCPU is more milliseconds than any process has run for.
const maxCPU = 1 << 42

// Health is what a multiplexor of our own says beyond the original's status.
type Health struct {
	Working int    // workers that have answered
	Rereads int    // since the start
	Reread  string // what became of the last one: "", "running", "done", or "failed" and why
	Fault   string // what workers die of; "" = nothing is wrong
	Since   int64  // seconds ago
}

// ourVersion is how the version of a multiplexor of our own begins.
const ourVersion = "postern"

// AskHealth asks for it. ok is false if the multiplexor is the original, which would give the question to a worker.
func AskHealth(ctx context.Context, ask func(ctx context.Context, request string) (string, error)) (h Health, ok bool, err error) {
	version, err := ask(ctx, VerbVersion)
	if err != nil || !strings.HasPrefix(version, ourVersion) {
		return h, false, err
	}
	reply, err := ask(ctx, VerbHealth)
	if err != nil {
		return h, false, err
	}
	h, ok = ParseHealth(reply)
	return h, ok, nil
}

// ParseHealth reads lines of a name and a value. Names it does not know are passed over.
func ParseHealth(reply string) (h Health, ok bool) {
	for line := range strings.Lines(reply) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.Atoi(value)
		switch name {
		case "Working":
			h.Working, ok = n, err == nil
		case "Rereads":
			h.Rereads = n
		case "Reread":
			h.Reread = value
		case "Fault":
			h.Fault = value
		case "FaultAge":
			h.Since = int64(n)
		}
	}
	return h, ok
}
