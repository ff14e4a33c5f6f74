package mxproto

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseWorkers(t *testing.T) {
	const reply = "0 B 6786 scan last=scan ago=0 (scan QQ)\n1 B 6787 relayok last=relayok ago=75 (relayok 1.2.3.4)\n" +
		"2 I 6788 last=recipok ago=3600\n3 S ago=0\n4 K 17714 ago=200000\n"
	all := []Worker{
		{0, 'B', "6786", "scan", "scan", 0, "scan QQ"},
		{1, 'B', "6787", "relayok", "relayok", 75, "relayok 1.2.3.4"},
		{2, 'I', "6788", "", "recipok", 3600, ""},
		{3, 'S', "", "", "", 0, ""},
		{4, 'K', "17714", "", "", 200000, ""},
	}
	tests := []struct {
		name, reply string
		want        []Worker
		bad         bool
	}{
		{"all states", reply, all, false},
		{"no LF at the end", strings.TrimSuffix(reply, "\n"), all, false},
		{"a tick", "0 B 5678 ago=0 (tick 0)\n", []Worker{{0, 'B', "5678", "", "", 0, "tick 0"}}, false},
		{"parentheses in the tag", "0 B 1 ago=0 (a (b) c)\n", []Worker{{0, 'B', "1", "", "", 0, "a (b) c"}}, false},
		{"words of a later version", "0 I 1 last=scan rss=12 ago=3\n", []Worker{{0, 'I', "1", "", "scan", 3, ""}}, false},
		{"line breaks in a tag", "0 B 1 ago=0 (a\n\nb\n2 B 3 ago=1 (x)\n1 S ago=5\n",
			[]Worker{{0, 'B', "1", "", "", 0, "a\n\nb\n2 B 3 ago=1 (x"}, {1, 'S', "", "", "", 5, ""}}, false},
		{"stray line", "0 S ago=0\nx\n", nil, true},
		{"not from 0", "1 S ago=0\n", nil, true},
		{"unknown state", "0 X ago=0\n", nil, true},
		{"no age", "0 S\n", nil, true},
		{"bad age", "0 S ago=x\n", nil, true},
		{"negative age", "0 S ago=-1\n", nil, true},
		{"error text", "error: No free workers\n", nil, true},
		{"empty line", "\n", nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := ParseWorkers(tt.reply)
			if ok == tt.bad || !tt.bad && !slices.Equal(got, tt.want) {
				t.Errorf("parseWorkers(%q) = %+v, %v; want %+v", tt.reply, got, ok, tt.want)
			}
		})
	}
}

// TestAskHealth: the original is not asked what it would give to a worker.
func TestAskHealth(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		replies map[string]string
		err     error
		asked   int
		want    Health
		ok      bool
	}{
		"ours":         {map[string]string{"version": "postern 1\n", "health": "Working 2\nFault x\n"}, nil, 2, Health{Working: 2, Fault: "x"}, true},
		"the original": {map[string]string{"version": "3.4\n"}, nil, 1, Health{}, false},
		"silence":      {nil, nil, 1, Health{}, false},
		"odd health":   {map[string]string{"version": "postern 1\n"}, nil, 2, Health{}, false},
		"broken":       {nil, broken, 1, Health{}, false},
	} {
		asked := 0
		h, ok, err := AskHealth(t.Context(), func(_ context.Context, request string) (string, error) {
			asked++
			return tt.replies[request], tt.err
		})
		if h != tt.want || ok != tt.ok || !errors.Is(err, tt.err) || asked != tt.asked {
			t.Errorf("%s: %+v, %v, %v after %d questions", name, h, ok, err, asked)
		}
	}
}
