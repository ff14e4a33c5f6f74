package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestScan has the worker judge working directories.
func TestScan(t *testing.T) {
	deep := strings.Repeat("Content-Type: message/rfc822\n\n", 30)
	exe := attachment("Content-Disposition: x; filename=a.exe")
	const clean = "HX-Filtered-By Postern%20filter-basic\nF\n"
	tests := []struct {
		name, headers, message string
		flags                  []string
		want                   string
	}{
		{"clean", "Subject: x\n", "Subject: x\n\nx\n", nil, clean},
		{"forged field", "x-filtered-by: me\nX-Filtered-By: me\n", "x-filtered-by: me\nX-Filtered-By: me\n\nx\n", nil,
			"JX-Filtered-By 2\nJX-Filtered-By 1\n" + clean},
		{"forged field, marked", "X-Filtered-By: me\n", exe, []string{"--on-blocked=mark"},
			"HX-Filter-Warning attachment%20name%20not%20allowed:%20a.exe\nJX-Filtered-By 1\nF\n"},
		{"no field", "", "\nx\n", []string{"--header="}, "F\n"},
		{"other field", "", "\nx\n", []string{"--header=X-A", "--header-value=b c"}, "HX-A b%20c\nF\n"},
		{"blocked", "", exe, nil, "B554 5.7.1 attachment%20name%20not%20allowed:%20a.exe\nF\n"},
		{"discarded", "", exe, []string{"--on-blocked=discard"}, "D\nF\n"},
		{"marked", "", exe, []string{"--on-blocked=mark"}, "HX-Filter-Warning attachment%20name%20not%20allowed:%20a.exe\nF\n"},
		{"deep", "", deep, nil, "B554 5.7.1 message%20is%20nested%20too%20deep\nF\n"},
		{"deep, for now", "", deep, []string{"--on-complex=tempfail"}, "T451 4.7.1 message%20is%20nested%20too%20deep\nF\n"},
		{"deep, marked", "", deep, []string{"--on-complex=mark"}, "HX-Filter-Warning message%20is%20nested%20too%20deep\nF\n"},
		{"hostile name", "", attachment("Content-Disposition: x; filename=\"a\x1b[2J\xff%0d%0a.exe\""), nil,
			"B554 5.7.1 attachment%20name%20not%20allowed:%20a?[2J?%250d%250a.exe\nF\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := scanResults(t, tt.message, append(tt.flags, "headers="+tt.headers)...); got != tt.want {
				t.Errorf("RESULTS %q; want %q", got, tt.want)
			}
		})
	}
}

// scanResults has the worker judge a message, and returns what it writes to RESULTS.
func scanResults(t *testing.T, message string, flags ...string) string {
	t.Helper()
	headers := ""
	if n := len(flags) - 1; n >= 0 && strings.HasPrefix(flags[n], "headers=") {
		headers, flags = strings.TrimPrefix(flags[n], "headers="), flags[:n]
	}
	return scanWith(t, settings(t, flags...), message, headers)
}

// scanWith is scanResults with settings, and what the file HEADERS has.
func scanWith(t *testing.T, s *Settings, message, headers string) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(os.WriteFile(filepath.Join(dir, "COMMANDS"), []byte("iA\nS<a@example.org>\nQAB12\nHmail.example.org\nI192.0.2.7\nEmail.example.org\nR<b@example.net> ? ? ?\nF\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "HEADERS"), []byte(headers), 0o600),
		os.WriteFile(filepath.Join(dir, "INPUTMSG"), []byte(message), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.filter().Serve(strings.NewReader("scan Q "+dir+"\n"), &out, nil); err != nil {
		t.Fatal(err)
	}
	if out.String() != "ok\n" {
		t.Errorf("answer %q", out.String())
	}
	got, err := os.ReadFile(filepath.Join(dir, "RESULTS"))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}
