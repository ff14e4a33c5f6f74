package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	statusReply = "BIKS 7 8 9 1 100\n"
	loadReply   = "1 1 1 1 3.000000 3.000000 3.000000 3.000000 142.000000 142.000000 142.000000 142.000000 " +
		"3 3 3 3 0 0 0 0 2 1 1 0 1 3 3 0 0\n"
	load1Reply = "1 3.000000 142.000000 0 0.000000 0.000000 1 3.000000 0.000000 1 3.000000 0.000000 " +
		"2 1 1 0 1 3 3 0 0 60 1 1 0 0\n"
	hloadReply = "2 2 2 2 1.000000 1.000000 1.000000 1.000000 0.500000 0.000000 0.000000 0.000000 0 7 0 0\n"
)

func TestMapping(t *testing.T) {
	loads := map[string]string{"load": loadReply, "hload": hloadReply}
	byRequest := func(request string) string {
		verb, _, _ := strings.Cut(strings.TrimSuffix(request, "\n"), " ")
		verb, _, _ = strings.Cut(verb, "-")
		switch verb {
		case "status":
			return statusReply
		case "load1":
			return load1Reply
		}
		if reply := loads[verb]; reply != "" {
			return reply
		}
		return "ok%20got <" + strings.TrimSuffix(request, "\n") + ">"
	}
	const loadTable = `10 Sec               1            0.10           142.0            3.00
 1 Min               1            0.02           142.0            3.00
 5 Min               1            0.00           142.0            3.00
10 Min               1            0.00           142.0            3.00
`
	const hloadTable = `    1h               2            0.00             0.5            1.00
    4h               2            0.29             0.0            1.00
   12h               2            0.00             0.0            1.00
   24h               2            0.00             0.0            1.00
`
	const load1Table = `Statistics for last 60 seconds:
       Cmd             Num           Num/s      AvgWorkers           AvgMS
      Scan               1             0.0             3.0           142.0
   Relayok               0             0.0             0.0             0.0
  Senderok               1             0.0             3.0             0.0
   Recipok               1             0.0             3.0             0.0

Current Snapshot:
Workers: busy=2 idle=1 stopped=1 killed=0
Cmds:   scan=1 relayok=1 senderok=0 recipok=0
Queue:  size=3 queued=0
`
	msgs := "  Load              Msgs        Msgs/Sec     Avg ms/Scan   Avg Busy Workers\n"
	conn := "  Load              Conn        Conn/Sec     Avg ms/Conn   Avg Busy Workers\n"
	mail := "  Load              MAIL        MAIL/Sec     Avg ms/MAIL   Avg Busy Workers\n"
	rcpt := "  Load              RCPT        RCPT/Sec     Avg ms/RCPT   Avg Busy Workers\n"
	tests := []struct{ line, request, out string }{
		{"status", "status", "Max workers: 4\nWorker 0: busy\nWorker 1: idle\nWorker 2: killed\nWorker 3: stopped\n"},
		{"barstatus", "status", "  1/4 B...    1/9 Q........ 7\n"},
		{"rawstatus", "status", statusReply},
		{"load", "load", msgs + loadTable},
		{"load-relayok", "load-relayok", conn + loadTable},
		{"load-senderok", "load-senderok", mail + loadTable},
		{"load-recipok", "load-recipok", rcpt + loadTable},
		{"rawload", "load", loadReply},
		{"rawload-relayok", "load-relayok", loadReply},
		{"rawload-senderok", "load-senderok", loadReply},
		{"rawload-recipok", "load-recipok", loadReply},
		{"hload", "hload", msgs + hloadTable},
		{"hload-relayok", "hload-relayok", conn + hloadTable},
		{"hload-senderok", "hload-senderok", mail + hloadTable},
		{"hload-recipok", "hload-recipok", rcpt + hloadTable},
		{"rawhload", "hload", hloadReply},
		{"rawhload-relayok", "hload-relayok", hloadReply},
		{"rawhload-senderok", "hload-senderok", hloadReply},
		{"rawhload-recipok", "hload-recipok", hloadReply},
		{"load1 60", "load1 60", load1Table},
		{"load1 60 70", "load1 60 70", load1Table},
		{"load1 ", "load1 ", load1Table},
		{"rawload1 60", "load1 60", load1Reply},
		{"load1", "load1", load1Reply}, // no argument: like any other command
		{"loadx", "loadx", "ok got <loadx>\n"},
		{"rawload1", "rawload1", "ok got <rawload1>\n"},
		{"rawload-x", "rawload-x", "ok got <rawload-x>\n"},
		{"rawstatus x", "rawstatus x", "ok got <rawstatus x>\n"},
		{"reread", "reread", "ok%20got <reread>\n"},
		{"msgs", "msgs", "ok%20got <msgs>\n"},
		{"msgs x", "msgs x", "ok got <msgs x>\n"},
		{"free", "free", "ok got <free>\n"},
		{"top", "top", "ok got <top>\n"},
		{"", "", "ok got <>\n"},
		{" status", " status", "ok got < status>\n"},
		{"foo a%20b \"x\"", "foo a%20b \"x\"", "ok got <foo a b \"x\">\n"},
	}
	for _, name := range []string{own, original} {
		f := answer(t, byRequest)
		for _, tt := range tests {
			t.Run(filepath.Base(name)+" "+tt.line, func(t *testing.T) {
				before := len(f.requests())
				got := runAs(name, tt.line+"\n", "-s", f.socket, "-i")
				if want := (result{tt.out, "", 0}); got != want {
					t.Errorf("line %q: got %v, want %v", tt.line, got, want)
				}
				if sent := f.requests()[before:]; len(sent) != 1 || sent[0] != tt.request+"\n" {
					t.Errorf("line %q: sent %q, want %q", tt.line, sent, tt.request)
				}
			})
		}
	}
}

func TestWordsAreEncoded(t *testing.T) {
	tests := []struct {
		words []string
		sent  string
	}{
		{[]string{"load1", "60"}, "load1 60"},
		{[]string{"rawload1", "60"}, "load1 60"},
		{[]string{"load1 60"}, "load1%2060"},
		{[]string{"foo", "a b", "%", `\`, `"`, "'", "\xff", "", ""}, "foo a%20b %25 %5C %22 %27 %FF  "},
		{[]string{""}, ""},
		{[]string{"x\ny"}, "x%0Ay"},
	}
	for _, tt := range tests {
		f := answer(t, func(string) string { return load1Reply })
		got := runAs(own, "", append([]string{"-s", f.socket}, tt.words...)...)
		if sent := f.requests(); got.status != 0 || len(sent) != 1 || sent[0] != tt.sent+"\n" {
			t.Errorf("words %q: status %d, sent %q, want %q", tt.words, got.status, sent, tt.sent)
		}
	}
}

// TestReplies shows each kind of command each kind of reply, under both names.
func TestReplies(t *testing.T) {
	const none = "ERROR MXCommand: connection closed without an answer\n"
	const question = "Could not interpret response: "
	tests := []struct {
		command, reply string
		own, original  result
	}{
		{"free", "2\n", result{"2\n", "", 0}, result{"2\n", "", 0}},
		{"version", "3.7.1", result{"3.7.1\n", "", 0}, result{"3.7.1\n", "", 0}},
		{"busyworkers", "", result{"", "", 0}, result{"", "", 0}},
		{"busyslaves", "", result{"", "", 0}, result{"", "", 0}},
		{"free", "", result{"", none, 1}, result{"", "", 0}},
		{"free", "error: No free workers\n", result{"error: No free workers\n", "", 1}, result{"error: No free workers\n", "", 0}},
		{"free", "ERR No response\n", result{"ERR No response\n", "", 1}, result{"ERR No response\n", "", 0}},
		{"free", "ERRATIC\n", result{"ERRATIC\n", "", 0}, result{"ERRATIC\n", "", 0}},
		{"foo", "a%00b\n", result{"a\n", "", 0}, result{"a\n", "", 0}},
		{"foo", "a\x00b\n", result{"a\n", "", 0}, result{"a\n", "", 0}},
		{"foo", "%41%4%zz%20%2a", result{"A%4%zz *\n", "", 0}, result{"A%4%zz *\n", "", 0}},
		{"foo", "x%0a", result{"x\n", "", 0}, result{"x\n", "", 0}},
		{"foo", "\x1b[2J\xff\n", result{"\x1b[2J\xff\n", "", 0}, result{"\x1b[2J\xff\n", "", 0}}, // no terminal: as it came
		{"msgs", "error: x\n", result{"error: x\n", "", 1}, result{"error: x\n", "", 0}},
		{"rawstatus", "BB 1", result{"BB 1\n", "", 0}, result{"BB 1\n", "", 0}},
		{"barstatus", "IBS 9999999999 1 0 0 1\n", result{"  1/3 B.. 9999999999\n", "", 0}, result{"  1/3 B.. 9999999999\n", "", 0}}, // more than 32 bits
		{"status", "", result{"", none, 1}, result{"", "ERROR ", 1}},
		{"status", "error: foo\n", result{"", "ERROR error: foo\n", 1}, result{"", "ERROR error: foo\n", 1}},
		{"barstatus", "xyz", result{"", "ERROR xyz", 1}, result{"", "ERROR xyz", 1}},
		{"jsonstatus", "xyz", result{"", "ERROR xyz", 1}, result{"", "ERROR xyz", 1}},
		{"status", "BX\n", result{"Max workers: 3\nWorker 0: busy\nWorker 1: unknown state 'X'\nWorker 2: unknown state '\n'\n", "", 0},
			result{"Max workers: 3\nWorker 0: busy\nWorker 1: unknown state 'X'\nWorker 2: unknown state '\n'\n", "", 0}},
		{"load", "", result{"", none, 1}, result{question, "", 1}},
		{"load", "error: foo\n", result{question + "error: foo\n", "", 1}, result{question + "error: foo\n", "", 1}},
		{"load", "1 2 x", result{question + "1 2 x", "", 1}, result{question + "1 2 x", "", 1}},
		{"hload", strings.TrimSuffix(hloadReply, " 0\n"), result{question + strings.TrimSuffix(hloadReply, " 0\n"), "", 1}, result{question + strings.TrimSuffix(hloadReply, " 0\n"), "", 1}},
		{"load1 60", "", result{"", none, 1}, result{question, "", 1}},
		{"load1 60", "garbage", result{question + "garbage", "", 1}, result{question + "garbage", "", 1}},
		{"load1 60", strings.TrimSuffix(load1Reply, " 0\n"), result{question + strings.TrimSuffix(load1Reply, " 0\n"), "", 1}, result{question + strings.TrimSuffix(load1Reply, " 0\n"), "", 1}},
		{"jsonload1 60", "error: x\n", result{question + "error: x\n", "", 1}, result{question + "error: x\n", "", 1}},
		{"rawload1 60", "error: Invalid 'back' amount (must be 10-600)\n", result{"error: Invalid 'back' amount (must be 10-600)\n", "", 1}, result{"error: Invalid 'back' amount (must be 10-600)\n", "", 0}},
	}
	for _, tt := range tests {
		t.Run(tt.command+" "+tt.reply, func(t *testing.T) {
			f := answer(t, func(string) string { return tt.reply })
			args := append([]string{"-s", f.socket}, strings.Fields(tt.command)...)
			if got := runAs(own, "", args...); got != tt.own {
				t.Errorf("%s, reply %q: got %v, want %v", tt.command, tt.reply, got, tt.own)
			}
			if got := runAs(original, "", args...); got != tt.original {
				t.Errorf("md-mx-ctrl %s, reply %q: got %v, want %v", tt.command, tt.reply, got, tt.original)
			}
			// With -i everything is on standard output.
			got := runAs(own, tt.command+"\n", "-is"+f.socket)
			if want := (result{tt.own.stdout + tt.own.stderr, "", tt.own.status}); got != want {
				t.Errorf("-i, %s, reply %q: got %v, want %v", tt.command, tt.reply, got, want)
			}
			got = runAs(original, tt.command+"\n", "-is"+f.socket)
			if want := (result{tt.original.stdout + tt.original.stderr, "", 0}); got != want {
				t.Errorf("md-mx-ctrl -i, %s, reply %q: got %v, want %v", tt.command, tt.reply, got, want)
			}
		})
	}
}

func TestInteractiveLines(t *testing.T) {
	f := answer(t, func(request string) string { return "<" + strings.TrimSuffix(request, "\n") + ">" })
	long := strings.Repeat("x", maxLine)
	got := runAs(own, "a\n\nb\r\n"+long+"\nc\x00\nlast", "-s", f.socket, "-i", "ignored")
	want := "<a>\n<>\n<b\r>\nERROR MXCommand: line of standard input too long\n" +
		"ERROR MXCommand: ask the multiplexor \"c\\x00\": LF or NUL in a request\n<last>\n"
	if got.stdout != want || got.stderr != "" || got.status != exitError {
		t.Errorf("got %v, want %q and status 1", got, want)
	}
	if got := runAs(own, "", "-s", f.socket, "-i"); got != (result{"", "", 0}) {
		t.Errorf("nothing to read: got %v", got)
	}
	if sent := f.requests(); len(sent) != 4 {
		t.Errorf("sent %q", sent)
	}
}

func TestJSON(t *testing.T) {
	f := answer(t, func(request string) string {
		if request == "status\n" {
			return "IBSKX 1 2 3 4 5\n"
		}
		return strings.Replace(load1Reply, "1 3.0", "2 3.0", 1)
	})
	for command, want := range map[string]string{
		"jsonstatus":   `"Worker0": "idle","Worker1": "busy","Worker2": "stopped","Worker3": "killed","Worker4": "unknown state 'X'"}`,
		"jsonload1 60": `"busyworkers":2, "idleworkers":1, "stoppedworkers":1, "killedworkers":0,"scan":2, "relayok":0, "senderok":1, "recipok":1,"queue_size":3, "queued_requests":0}` + "\n",
	} {
		before := time.Now().Truncate(time.Second)
		got := runAs(own, "", append([]string{"-s", f.socket}, strings.Fields(command)...)...)
		stamp, rest, ok := strings.Cut(strings.TrimPrefix(got.stdout, `{"timestamp": "`), `"`)
		at, err := time.ParseInLocation("Mon Jan _2 15:04:05 2006", stamp, time.Local)
		if !ok || err != nil || at.Before(before) || at.After(time.Now()) {
			t.Errorf("%s: timestamp in %q: %v, %v", command, got.stdout, at, err)
		}
		host, _ := os.Hostname()
		if rest != `,"hostname": "`+host+`",`+want || got.status != 0 || got.stderr != "" {
			t.Errorf("%s: got %v, want %q", command, got, want)
		}
	}
}

func TestBar(t *testing.T) {
	for reply, want := range map[string]string{
		"BBIS 1 3 3 0 0": "  2/4 BB..    0/3 ... 1\n",
		strings.Repeat("B", 8) + strings.Repeat("S", 32) + " 0 9 30 0 0": "  8/40 BBBBB....................    0/30 .................... 0\n",
		"B 0 1 30 4 0":     "  1/1 B    4/30 QQQ................. 0\n",
		"BI 123456 2 0 0 ": "  1/2 B. 123456\n",
		strings.Repeat("B", 13) + strings.Repeat("I", 13) + " 1 2 3 4 5":    " 13/26 BBBBBBBBBBBBB............    4/3 QQQ 1\n",
		strings.Repeat("B", 1) + strings.Repeat("I", 499) + " 1 2 128 64 5": "  1/500 B........................   64/128 QQQQQQQQQQ.......... 1\n",
		strings.Repeat("B", 4000) + " 1 2 21 10 5":                          "4000/4000 BBBBBBBBBBBBBBBBBBBBBBBBB   10/21 QQQQQQQQQQ.......... 1\n",
		strings.Repeat("B", 14) + strings.Repeat("I", 36) + " 1 2 0 0 5":    " 14/50 BBBBBBB.................. 1\n",
		strings.Repeat("B", 30) + strings.Repeat("I", 20) + " 1 2 0 0 5":    " 30/50 BBBBBBBBBBBBBBBB......... 1\n",
		"B -1 2 -5 9 1": "  1/1 B    9/-5  -1\n",
	} {
		if got := showBar(reply); got.text != want {
			t.Errorf("%.60q: got %q, want %q", reply, got.text, want)
		}
	}
}

// TestOutputThatIsLost: a reply that could not be shown is no success.
func TestOutputThatIsLost(t *testing.T) {
	f := topFake(t, func() string { return workersReply })
	for _, args := range [][]string{{"free"}, {"status"}, {"top"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		status := run(append([]string{own, "-s", f.socket}, args...), stdio{strings.NewReader(""), full, io.Discard})
		if full.Close(); status != exitError {
			t.Errorf("%s on a full device: status %d", args, status)
		}
	}
}
