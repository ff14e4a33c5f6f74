package main

import (
	"fmt"
	"strings"
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

// tableOf shows the reply to load or hload. Where md-mx-ctrl shows what happened to
// be in its memory for numbers that are missing, the reply is not understood.
func tableOf(r rows, of titles) func(string) outcome {
	return func(reply string) outcome {
		n := numbers{rest: reply}
		var count, seconds [4]int64
		var busy, ms [4]float64
		for i := range count {
			count[i] = n.int()
		}
		for i := range busy {
			busy[i] = n.float()
		}
		for i := range ms {
			ms[i] = n.float()
		}
		if seconds = r.seconds; r.spans {
			for i := range seconds {
				seconds[i] = n.int()
			}
		}
		if n.bad {
			return notUnderstood(reply)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%6s %17s %15s %15s   Avg Busy Workers\n", "Load", of.many, of.many+"/Sec", "Avg ms/"+of.one)
		for i, name := range r.names {
			fmt.Fprintf(&b, "%6s %15d %15.2f %15.1f %15.2f\n", name, count[i], rate(count[i], seconds[i]), ms[i], busy[i])
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

// commandNames are the four commands that have statistics, in the order in which
// the reply to load1 has them.
var commandNames = [4]string{"Scan", "Relayok", "Senderok", "Recipok"}

// recentLoad is the reply to load1 N.
type recentLoad struct {
	commands                                       [4]commandLoad
	busy, idle, stopped, killed                    int64
	messages, activations, queueSize, queued, upTo int64
	seconds                                        int64 // N
	running                                        [4]int64
}

// commandLoad is how often one command ran in the last N seconds, with how many
// busy workers at its end and how many milliseconds on average.
type commandLoad struct {
	count    int64
	busy, ms float64
}

func parseLoad1(reply string) (recentLoad, bool) {
	n := numbers{rest: reply}
	var l recentLoad
	for i := range l.commands {
		l.commands[i] = commandLoad{n.int(), n.float(), n.float()}
	}
	n.ints(&l.busy, &l.idle, &l.stopped, &l.killed)
	n.ints(&l.messages, &l.activations, &l.queueSize, &l.queued, &l.upTo, &l.seconds)
	for i := range l.running {
		l.running[i] = n.int()
	}
	return l, !n.bad
}

func showLoad1(reply string) outcome {
	l, ok := parseLoad1(reply)
	if !ok {
		return notUnderstood(reply)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Statistics for last %d seconds:\n%10s %15s %15s %15s %15s\n", l.seconds, "Cmd", "Num", "Num/s", "AvgWorkers", "AvgMS")
	for i, c := range l.commands {
		fmt.Fprintf(&b, "%10s %15d %15.1f %15.1f %15.1f\n", commandNames[i], c.count, rate(c.count, l.seconds), c.busy, c.ms)
	}
	fmt.Fprintf(&b, "\nCurrent Snapshot:\nWorkers: busy=%d idle=%d stopped=%d killed=%d\n", l.busy, l.idle, l.stopped, l.killed)
	fmt.Fprintf(&b, "Cmds:   scan=%d relayok=%d senderok=%d recipok=%d\n", l.running[0], l.running[1], l.running[2], l.running[3])
	fmt.Fprintf(&b, "Queue:  size=%d queued=%d\n", l.queueSize, l.queued)
	return outcome{text: b.String()}
}

func showJSONLoad1(reply string) outcome {
	l, ok := parseLoad1(reply)
	if !ok {
		return notUnderstood(reply)
	}
	return outcome{text: jsonHead() + fmt.Sprintf(
		`,"busyworkers":%d, "idleworkers":%d, "stoppedworkers":%d, "killedworkers":%d,`+
			`"scan":%d, "relayok":%d, "senderok":%d, "recipok":%d,"queue_size":%d, "queued_requests":%d}`+"\n",
		l.busy, l.idle, l.stopped, l.killed,
		l.commands[0].count, l.commands[1].count, l.commands[2].count, l.commands[3].count, l.queueSize, l.queued)}
}
