package mxproto

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseVerdict(t *testing.T) {
	tests := []struct {
		reply string
		want  Verdict
	}{
		{"ok 1\n", Verdict{Action: Continue, Code: "250", DSN: "2.1.0"}},
		{"ok -1\n", Verdict{Action: TempFail, Text: "Please try again later", Code: "451", DSN: "4.3.0"}},
		{"ok 0\n", Verdict{Action: Reject, Text: "Forbidden for policy reasons", Code: "554", DSN: "5.7.1"}},
		{"ok 0 no%20%25%20way 550 5.7.2 3\n", Verdict{Action: Reject, Text: "no % way", Code: "550", DSN: "5.7.2", Delay: 3 * time.Second}},
		{"ok 2 ? 250 2.1.0 0\n", Verdict{Action: Accept, Text: "?", Code: "250", DSN: "2.1.0"}},
		{"ok 3 gone 250 2.1.0 0\r\n", Verdict{Action: Discard, Text: "gone", Code: "250", DSN: "2.1.0"}},
		{"ok 1 fine", Verdict{Action: Continue, Text: "fine", Code: "250", DSN: "2.1.0"}},
		// A code of another class than the verdict never passes, nor does its fellow.
		{"ok 0 x 250 5.1.1\n", Verdict{Action: Reject, Text: "x", Code: "554", DSN: "5.7.1"}},
		{"ok 0 x 450 4.1.1\n", Verdict{Action: Reject, Text: "x", Code: "554", DSN: "5.7.1"}},
		{"ok 0 x 550 2.0.0\n", Verdict{Action: Reject, Text: "x", Code: "554", DSN: "5.7.1"}},
		{"ok 0 x 999\n", Verdict{Action: Reject, Text: "x", Code: "554", DSN: "5.7.1"}},
		{"ok -1 x abc\n", Verdict{Action: TempFail, Text: "x", Code: "451", DSN: "4.7.1"}},
		{"ok -1 x 4\n", Verdict{Action: TempFail, Text: "x", Code: "451", DSN: "4.7.1"}},
		{"ok -1 x 450 4.7.1234\n", Verdict{Action: TempFail, Text: "x", Code: "451", DSN: "4.7.1"}},
		// Control characters do not get through, line breaks do.
		{"ok 0 no%0D%0A250%20ok%00%1B%7F 554 5.7.1 0\n", Verdict{Action: Reject, Text: "no\n250 ok   ", Code: "554", DSN: "5.7.1"}},
		{"ok 0 a%0A%0A\n", Verdict{Action: Reject, Text: "a", Code: "554", DSN: "5.7.1"}},
		{"ok 0 %250A\n", Verdict{Action: Reject, Text: "%0A", Code: "554", DSN: "5.7.1"}},
		{"ok 1 x 250 2.1.0 -5\n", Verdict{Action: Continue, Text: "x", Code: "250", DSN: "2.1.0"}},
		{"ok -1 Per-domain%20recipok%20limit%20hit;%20please%20try%20again%20later\n",
			Verdict{Action: TempFail, Text: "Per-domain recipok limit hit; please try again later", Code: "451", DSN: "4.3.0"}},
	}
	for _, tt := range tests {
		t.Run(tt.reply, func(t *testing.T) {
			got, err := ParseVerdict(tt.reply)
			if err != nil {
				t.Fatalf("ParseVerdict(%q): %v", tt.reply, err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("ParseVerdict(%q) differs (-want +got):\n%s", tt.reply, d)
			}
		})
	}
}

func TestParseVerdictRefuses(t *testing.T) {
	for _, reply := range []string{"", "\n", "ok\n", "ok 4\n", "ok 1", "ok 0 ", "ok  1\n", "ok -2 x\n", "OK 1\n", "ok 01\n", "okay 1\n",
		"error: No free workers\n", "ERR No response from worker\n", "ok 0 bad%4\n", "ok 0 bad% 554\n", "ok 0 x 5%GG 5.7.1\n"} {
		t.Run(reply, func(t *testing.T) {
			got, err := ParseVerdict(reply)
			var bad *AnswerError
			if !errors.As(err, &bad) || bad.Reply != reply {
				t.Errorf("ParseVerdict(%q) = %+v, %v; want an AnswerError with the reply", reply, got, err)
			}
		})
	}
}

func TestParseScanAndFree(t *testing.T) {
	for reply, good := range map[string]bool{"ok\n": true, "ok": false, "ok \n": false, "ok\r\n": false, "": false, "error: x\n": false} {
		if err := ParseScan(reply); (err == nil) != good {
			t.Errorf("ParseScan(%q) = %v, want success: %v", reply, err, good)
		}
	}
	for reply, want := range map[string]int{"0\n": 0, "12\n": 12, "-1\n": -1, "x\n": -1, "": -1, "ok got <free>\n": -1} {
		n, err := ParseFree(reply)
		if (err == nil) != (want >= 0) || (err == nil && n != want) {
			t.Errorf("ParseFree(%q) = %d, %v, want %d", reply, n, err, want)
		}
	}
}

// FuzzParseVerdict holds that whatever a worker says, the codes fit the action
// and the text cannot end a reply line early.
func FuzzParseVerdict(f *testing.F) {
	for _, s := range []string{"ok 1\n", "ok 0 a%0D%0Ab 554 5.7.1 0\n", "ok -1 x 450 4.1.1 9999999999\n", "ERR x", "ok 3 \xff\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		v, err := ParseVerdict(reply)
		if err != nil {
			return
		}
		class := map[Action]byte{TempFail: '4', Reject: '5', Continue: '2', Accept: '2', Discard: '2'}[v.Action]
		if class == 0 || len(v.Code) != 3 || v.Code[0] != class || v.DSN[0] != class {
			t.Errorf("ParseVerdict(%q) = %+v: codes do not fit", reply, v)
		}
		if strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) || v.Delay < 0 {
			t.Errorf("ParseVerdict(%q) = %+v: control characters or a negative delay", reply, v)
		}
	})
}
