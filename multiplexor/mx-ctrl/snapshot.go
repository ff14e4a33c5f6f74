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

// recentSeconds is over how long top takes its averages: the shortest time that
// load1 knows.
const recentSeconds = 10

// snapshot is what top shows: replies asked for one after the other.
type snapshot struct {
	at      time.Time
	status  poolStatus
	workers []worker
	load    recentLoad
	usage   map[int]usage // of some slots; nil if the multiplexor does not tell
}

// worker is one line of the reply to workers.
type worker struct {
	slot  int
	state byte   // I B S K
	pid   string // empty without a process
	now   string // scan, relayok, senderok or recipok if it runs one of those
	last  string // the last of those that it ran
	ago   int64  // seconds since the state changed
	tag   string // what it does, in its own words: not safe to show
}

// take asks for a snapshot with requests that the original multiplexor knows,
// too, also on the socket for status requests only.
func (c *client) take(ctx context.Context) (*snapshot, error) {
	s := new(snapshot)
	for _, part := range []struct {
		request string
		read    func(reply string) (ok bool)
	}{
		{"status", func(reply string) (ok bool) { s.status, ok = parseStatus(reply); return ok }},
		{"workers", func(reply string) (ok bool) { s.workers, ok = parseWorkers(reply); return ok }},
		{fmt.Sprintf("load1 %d", recentSeconds), func(reply string) (ok bool) { s.load, ok = parseLoad1(reply); return ok }},
	} {
		reply, err := c.ask(ctx, part.request)
		if err != nil {
			return nil, err
		}
		if reply == "" {
			return nil, fmt.Errorf("%s: %w", part.request, mxproto.ErrNoReply)
		}
		if !part.read(reply) {
			return nil, &badReply{part.request, reply}
		}
	}
	c.takeUsage(ctx, s)
	s.at = time.Now()
	return s, nil
}

// badReply is the error of a reply that is not in the form of its request.
type badReply struct{ request, reply string }

func (e *badReply) Error() string {
	return fmt.Sprintf("%s: answer not understood: %.200s", e.request, safeLine(strings.TrimSuffix(e.reply, "\n")))
}

// parseWorkers reads the reply to workers. The original lets a worker put a line
// break into its tag: a line that is not that of the next slot belongs to the tag
// before it.
func parseWorkers(reply string) ([]worker, bool) {
	var all []worker
	for line := range strings.Lines(reply) {
		line = strings.TrimSuffix(line, "\n")
		w, err := parseWorker(line)
		switch {
		case err == nil && w.slot == len(all):
			all = append(all, w)
		case len(all) > 0 && all[len(all)-1].tag != "":
			all[len(all)-1].tag += "\n" + line
		default:
			return nil, false
		}
	}
	for i := range all {
		all[i].tag = strings.TrimSuffix(all[i].tag, ")")
	}
	return all, true
}

var errNoWorker = errors.New("not a line of workers")

// parseWorker reads one line: N LETTER[ PID][ CMD][ last=CMD] ago=SECS[ (TAG)].
// The tag keeps its closing parenthesis, which may come lines later.
func parseWorker(line string) (worker, error) {
	line, tag, _ := strings.Cut(line, " (")
	words := strings.Fields(line)
	if len(words) < 3 || len(words[1]) != 1 || stateNames[words[1][0]] == "" {
		return worker{}, errNoWorker
	}
	slot, err := strconv.Atoi(words[0])
	if err != nil {
		return worker{}, errNoWorker
	}
	w := worker{slot: slot, state: words[1][0], tag: tag, ago: -1}
	for i, word := range words[2:] {
		switch key, value, assigned := strings.Cut(word, "="); {
		case assigned && key == "ago":
			if w.ago, err = strconv.ParseInt(value, 10, 64); err != nil || w.ago < 0 {
				return worker{}, errNoWorker
			}
		case assigned && key == "last":
			w.last = value
		case assigned: // something that a later multiplexor says
		case i == 0 && digitsLength(word) == len(word):
			w.pid = word
		default:
			w.now = word
		}
	}
	if w.ago < 0 {
		return worker{}, errNoWorker
	}
	return w, nil
}
