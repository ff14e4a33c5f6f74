package logging

import (
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"
)

// What a program of ours logs is read as it was, whatever strangers have put in.
func TestParseWhatIsLogged(t *testing.T) {
	texts := []string{"", "x", "a b", `"`, `\`, "a=b", "time=2026-01-02T03:04:05Z", `{"msg":"x"}`, "\x00\x1b\n\r\t", "\u202ecba", "ä€😀", "\xff\xfe", "client=203.0.113.9 gate=load", `" client="203.0.113.9`}
	for _, format := range []string{Text, JSON} {
		for _, target := range []string{"standard error", "syslog"} {
			for _, text := range texts {
				var lines []string
				send := func(r record) error { lines = append(lines, string(r.line)); return nil }
				o := Options{Format: format, Level: slog.LevelInfo}
				handler := newLineHandler(o, send)
				if target == "standard error" {
					handler = o.stderrHandler(lineWriter{send, format == JSON})
				}
				slog.New(handler).With("session", "s1").Info("refused", "helo", text, "client", "192.0.2.1", "size", 17, "ok", true)
				want := map[string]string{"session": "s1", "helo": text, "client": "192.0.2.1", "size": "17", "ok": "true"}
				if text == "\xff\xfe" && format == JSON {
					want["helo"] = "\ufffd\ufffd"
				}
				for _, line := range []string{lines[0], "Nov 28 20:47:21 host smtp-proxy[12]: " + lines[0]} {
					l := ParseLine(strings.TrimSuffix(line, "\n"), time.Now())
					if l.Message != "refused" || !maps.Equal(l.Attrs, want) {
						t.Errorf("%s to %s: %q: %q, %q", format, target, line, l.Message, l.Attrs)
					}
				}
			}
		}
	}
}

func TestParseLine(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]Line{
		"": {}, "stopped": {Message: "stopped"}, "{": {Message: "{"}, "=": {Message: "="},
		"time=2026-01-02T03:04:05Z level=INFO msg=stopped":                                                                {Time: at, Message: "stopped"},
		"Jan  2 03:04:05 mx smtp-proxy[1]: stopped":                                                                       {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"Jan  2 03:04:05.123456 mx smtp-proxy[1]: stopped":                                                                {Time: at.Add(123456 * time.Microsecond), Program: "smtp-proxy", Message: "stopped"},
		"Fri 2026-01-02 03:04:05 UTC mx smtp-proxy.service[1]: stopped":                                                   {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"1767323045.000000 mx smtp-proxy[1]: stopped":                                                                     {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"[  12.345678] mx smtp-proxy[1]: stopped":                                                                         {Program: "smtp-proxy", Message: "stopped"},
		"Jan  2 03:04:05 smtp-proxy[1]: stopped":                                                                          {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"Jan  2 03:04:05 mx other[1]: Jan  2 03:04:05 mx smtp-proxy[1]: stopped":                                          {Time: at, Program: "other", Message: "Jan  2 03:04:05 mx smtp-proxy[1]: stopped"},
		"Dec 31 03:04:05 mx smtp-proxy: stopped":                                                                          {Time: at.AddDate(0, 0, -2), Program: "smtp-proxy", Message: "stopped"},
		"2026-01-02T03:04:05+0000 mx smtp-proxy[1]: stopped":                                                              {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"2026-01-02T03:04:05.000+00:00 mx smtp-proxy[1]: stopped":                                                         {Time: at, Program: "smtp-proxy", Message: "stopped"},
		`{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"stopped"}`:                                                  {Time: at, Message: "stopped"},
		`{"MESSAGE":"stopped","SYSLOG_IDENTIFIER":"smtp-proxy","__REALTIME_TIMESTAMP":"1767323045000000","PRIORITY":"6"}`: {Time: at, Program: "smtp-proxy", Message: "stopped"},
		"message size=1 size=2 a=\"cut":                                                                                   {Message: "message", Attrs: map[string]string{"size": "1", "a": "cut"}},
		"message to=\"a b\" what behind":                                                                                  {Message: "message", Attrs: map[string]string{"to": "a b"}},
		`{"MESSAGE":"{\"msg\":\"refused\",\"duration\":0.25}","__REALTIME_TIMESTAMP":"later"}`:                            {Message: "refused", Attrs: map[string]string{"duration": "0.25"}},
	} {
		l := ParseLine(text, now)
		if !l.Time.Equal(want.Time) || l.Program != want.Program || l.Message != want.Message || !maps.Equal(l.Attrs, want.Attrs) {
			t.Errorf("%q: %v %q %q %q", text, l.Time, l.Program, l.Message, l.Attrs)
		}
	}
}
