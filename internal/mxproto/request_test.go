package mxproto

import (
	"strings"
	"testing"
)

func TestRequestLines(t *testing.T) {
	tests := []struct {
		name string
		req  interface{ Line() string }
		want string
	}{
		{"relayok", Relayok{IP: "192.0.2.7", Name: "mail.client.example", Port: 41234, MyIP: "192.0.2.25", MyPort: 25},
			"relayok 192.0.2.7 mail.client.example 41234 192.0.2.25 25 NOQUEUE"},
		{"relayok, nothing known", Relayok{}, "relayok UNKNOWN UNKNOWN 0 UNKNOWN 0 NOQUEUE"},
		{"helook", Helook{IP: "2001:db8::9", Name: "[2001:db8::9]", Helo: "mail.client.example", Port: 4444, MyIP: "192.0.2.25", MyPort: 25, QID: "q1"},
			"helook 2001:db8::9 [2001:db8::9] mail.client.example 4444 192.0.2.25 25 q1"},
		{"senderok", Senderok{Sender: `<a"b@x>`, IP: "192.0.2.7", Name: "n", Helo: "h", Dir: "/s/mdefang-1", QID: "q", ESMTP: []string{"SIZE=812", ""}},
			"senderok <a%22b@x> 192.0.2.7 n h /s/mdefang-1 q SIZE=812"},
		{"recipok", Recipok{Recipient: "<bob@example.org>", Sender: "<>", IP: "192.0.2.7", Name: "h", FirstRecipient: "<bob@example.org>", Helo: "h", Dir: "/d", ESMTP: []string{"NOTIFY=NEVER"}},
			"recipok <bob@example.org> <> 192.0.2.7 h <bob@example.org> h /d NOQUEUE ? ? ? NOTIFY=NEVER"},
		{"scan", Scan{QID: "q", Dir: "/a b"}, "scan q /a%20b"},
		{"hostile words", Helook{IP: "1.2.3.4", Helo: "a\r\nscan x\x00'\xff"}, "helook 1.2.3.4 1.2.3.4 a%0D%0Ascan%20x%00%27%FF 0 UNKNOWN 0 NOQUEUE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.req.Line()
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if strings.ContainsAny(got, "\r\n\x00") || strings.Contains(got, "  ") {
				t.Errorf("more than one line, or an empty word: %q", got)
			}
		})
	}
}
