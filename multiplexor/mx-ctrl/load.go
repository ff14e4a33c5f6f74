package main

import (
	"fmt"
	"strings"

	"postern/internal/mxproto"
)

// rows names the four rows of a table and says over how many seconds a rate is
// taken: fixed ones, or those that the reply gives as its last four numbers.
type rows struct {
	names   [4]string
	seconds [4]int64
	spans   bool
}

var (
	minutes = rows{names: [4]string{"10 Sec", "1 Min", "5 Min", "10 Min"}, seconds: [4]int64{10, 60, 300, 600}}
	hours   = rows{names: [4]string{"1h", "4h", "12h", "24h"}, spans: true}
)

// titles words what is counted, in the plural and as the unit.
type titles struct{ many, one string }

var (
	messages    = titles{"Msgs", "Scan"}
	connections = titles{"Conn", "Conn"}
	senders     = titles{"MAIL", "MAIL"}
	recipients  = titles{"RCPT", "RCPT"}
)

// commandNames are the four commands that have statistics, in the order in which
// the reply to load1 has them.
var commandNames = [4]string{"Scan", "Relayok", "Senderok", "Recipok"}

// tableOf shows the reply to load or hload. Where md-mx-ctrl shows what happened to
// be in its memory for numbers that are missing, the reply is not understood.
func tableOf(r rows, of titles) func(string) outcome {
	return func(reply string) outcome {
		load, ok := mxproto.ParseLoad(reply, r.spans)
		if !ok {
			return notUnderstood(reply)
		}
		seconds := r.seconds
		if r.spans {
			seconds = load.Spans
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%6s %17s %15s %15s   Avg Busy Workers\n", "Load", of.many, of.many+"/Sec", "Avg ms/"+of.one)
		for i, name := range r.names {
			fmt.Fprintf(&b, "%6s %15d %15.2f %15.1f %15.2f\n", name, load.Count[i], rate(load.Count[i], seconds[i]), load.Milliseconds[i], load.Busy[i])
		}
		return outcome{text: b.String()}
	}
}

// rate is how many a second; 0 when no time has passed.
func rate(count, seconds int64) float64 {
	if seconds == 0 {
		return 0
	}
	return float64(count) / float64(seconds)
}

func showLoad1(reply string) outcome {
	l, ok := mxproto.ParseRecentLoad(reply)
	if !ok {
		return notUnderstood(reply)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Statistics for last %d seconds:\n%10s %15s %15s %15s %15s\n", l.Seconds, "Cmd", "Num", "Num/s", "AvgWorkers", "AvgMS")
	for i, c := range l.Commands {
		fmt.Fprintf(&b, "%10s %15d %15.1f %15.1f %15.1f\n", commandNames[i], c.Count, rate(c.Count, l.Seconds), c.Busy, c.Milliseconds)
	}
	fmt.Fprintf(&b, "\nCurrent Snapshot:\nWorkers: busy=%d idle=%d stopped=%d killed=%d\n", l.Busy, l.Idle, l.Stopped, l.Killed)
	fmt.Fprintf(&b, "Cmds:   scan=%d relayok=%d senderok=%d recipok=%d\n", l.Running[0], l.Running[1], l.Running[2], l.Running[3])
	fmt.Fprintf(&b, "Queue:  size=%d queued=%d\n", l.QueueSize, l.Queued)
	return outcome{text: b.String()}
}

func showJSONLoad1(reply string) outcome {
	l, ok := mxproto.ParseRecentLoad(reply)
	if !ok {
		return notUnderstood(reply)
	}
	return outcome{text: jsonHead() + fmt.Sprintf(
		`,"busyworkers":%d, "idleworkers":%d, "stoppedworkers":%d, "killedworkers":%d,`+
			`"scan":%d, "relayok":%d, "senderok":%d, "recipok":%d,"queue_size":%d, "queued_requests":%d}`+"\n",
		l.Busy, l.Idle, l.Stopped, l.Killed,
		l.Commands[0].Count, l.Commands[1].Count, l.Commands[2].Count, l.Commands[3].Count, l.QueueSize, l.Queued)}
}
