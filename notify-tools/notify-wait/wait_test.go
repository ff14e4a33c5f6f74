package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/notify/listener"
	"postern/internal/testenv"
)

func event(kind listener.Kind, line string) listener.Event {
	e := listener.Event{Kind: kind, Seq: 1}
	if line != "" {
		e.Letter = line[0]
		e.Text = strings.TrimPrefix(line[1:], " ")
	}
	return e
}

func TestConditions(t *testing.T) {
	tests := []struct {
		name, condition string
		events          string // separated by |; = before those of a snapshot, ! is its end, ^ a connection
		met             int    // which of them meets it, counted from 1; 0 for none
	}{
		{"free at least", "free>=2", "^|=F 1|=Y|!|F 0|Z|F 1|Y|F 2", 9},
		{"free more than", "free > 0", "^|=F 0|=Z|!|F 1", 5},
		{"known from the snapshot", "free>0", "^|=F 3", 2},
		{"exactly", "free==1", "F 0|F 2|F 1", 3},
		{"exactly, one sign", "free=1", "F 1", 1},
		{"less", "free<3", "F 3|F 4|F 2", 3},
		{"at most", "free<=3", "F 4|F 3", 2},
		{"not", "free!=0", "F 0|F 4", 2},
		{"Y says one at least", "free>=1", "Y", 1},
		{"Y does not say two", "free>=2", "Y", 0},
		{"Y does not say one", "free=1", "Y", 0},
		{"Y says not none", "free!=0", "Y", 1},
		{"Y may be any", "free!=5", "Y", 0},
		{"Z says none", "free<1", "Z", 1},
		{"no workers", "no-workers", "^|=F 1|=Y|!|F 0", 5},
		{"no workers, Z again", "no-workers", "Z", 1},
		{"working", "working>=2", "^|=F 2|=N 0|!|F 2|N 1|N 2", 7},
		{"working, from the snapshot", "working>0", "^|=F 0|=N 1", 3},
		{"none working", "working = 0", "^|=F 2|=N 1|!|N 0", 5},
		{"free is not working", "working>=1", "F 2|Y|S 0 StateChange Stopped -> Idle", 0},
		{"a message", "R", "B|R", 2},
		{"not that of a snapshot", "Z", "^|=Z|!|Y|Z", 5},
		{"one of several", "BU", "Y|U", 2},
		{"idle at once", "idle", "^|!", 2},
		{"idle later", "idle", "^|=S 0 ping|=S 3 scan q|!|S 0 StateChange Busy -> Idle|S 3 > body|S 3 StateChange Busy -> Killed", 7},
		{"another becomes busy", "idle", "^|=S 0 ping|!|S 1 StateChange Idle -> Busy|S 0 StateChange Busy -> Idle|S 1 StateChange Busy -> Idle", 6},
		{"idle after a new connection", "idle", "^|=S 0 ping|^|!", 4},
		{"garbage is no message", "free>=0", "?oops", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseCondition(tt.condition)
			if err != nil {
				t.Fatal(err)
			}
			met := 0
			for i, s := range strings.Split(tt.events, "|") {
				var e listener.Event
				switch s[0] {
				case '=':
					e = event(listener.State, s[1:])
				case '!':
					e = event(listener.Live, "")
				case '^':
					e = event(listener.Up, "")
				case '?':
					e = listener.Event{Kind: listener.Other, Message: notify.Message{Text: s[1:]}}
				default:
					e = event(listener.Happened, s)
				}
				if c.met(&e) {
					met = i + 1
					break
				}
			}
			if met != tt.met {
				t.Errorf("met by event %d, want %d", met, tt.met)
			}
		})
	}
}

func TestIdleOfAnOriginal(t *testing.T) {
	c := &idle{}
	for i, s := range []string{"S 1 StateChange Idle -> Busy", "S 1 ping", "S 1 StateChange Busy -> Idle"} {
		e := event(listener.Happened, s)
		e.Seq = 0
		if i == 0 {
			c.met(&listener.Event{Kind: listener.Up})
		}
		if got := c.met(&e); got != (i == 2) {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestBadConditions(t *testing.T) {
	for _, s := range []string{"", "free", "free>", "free>-1", "free>>2", "free>1 x", "workers", "r", "free>99999999999"} {
		if c, err := parseCondition(s); err == nil {
			t.Errorf("%q is taken for %#v", s, c)
		}
	}
}

func TestRun(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "n")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Options{})
	go h.Serve(l)
	defer h.Close()
	h.Seed(notify.Message{Letter: 'F', Text: "2"}, notify.Message{Letter: 'Y'})

	tests := []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"met at once", []string{"free>=2", socket}, 0, ""},
		{"not in time", []string{"free>2", socket, "--timeout=50ms"}, 124, "time is up"},
		{"bad condition", []string{"sometimes", socket}, 64, "sometimes"},
		{"no condition", nil, 64, "condition"},
		{"bad flag", []string{"idle", "--never"}, 64, "--never"},
		{"no daemon", []string{"idle", socket + "x", "--no-reconnect"}, 1, "no such file"},
		{"no daemon in time", []string{"idle", socket + "x", "--timeout=50ms"}, 124, "waiting for nx"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, log testenv.Buffer
			if status := run(tt.args, &out, &log); status != tt.status || !strings.Contains(log.String(), tt.stderr) {
				t.Errorf("status %d, want %d; standard error %q", status, tt.status, log.String())
			}
		})
	}

	var out, log testenv.Buffer
	before := h.Stats().Subscriptions
	done := make(chan int, 1)
	go func() { done <- run([]string{"no-workers", socket, "--timeout=3m"}, &out, &log) }()
	testenv.Eventually(t, "a listener", func() bool { return h.Stats().Subscriptions > before })
	h.Publish(notify.Message{Letter: 'F', Text: "1"}, notify.Message{Letter: 'F', Text: "0"}, notify.Message{Letter: 'Z'})
	if status := testenv.Receive(t, "the end of the tool", done); status != 0 {
		t.Errorf("status %d: %s", status, log.String())
	}
}
