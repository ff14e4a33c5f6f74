package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"postern/filters/filter-basic/scanner"
)

// fakeScanner answers what it is told to.
type fakeScanner struct {
	name   string
	result scanner.Result
	err    error
	asked  *[]string
}

func (f fakeScanner) Name() string { return f.name }

func (f fakeScanner) Scan(_ context.Context, m *scanner.Message) (scanner.Result, error) {
	*f.asked = append(*f.asked, f.name)
	return f.result, f.err
}

func TestScanners(t *testing.T) {
	spamFields := scanner.Result{Verdict: scanner.Spam, Name: "add header", Scored: true, Score: 7, Required: 15, Symbols: []string{"A", "B"}, Subject: "[spam] x",
		Remove: []scanner.Field{{Name: "X-Spam", Index: 1}, {Name: "X-Old"}, {Name: "X-Spam", Index: 2}},
		Add:    []scanner.Field{{Name: "X-Spam", Value: "yes", Index: -1}, {Name: "X-Top", Value: "yes", Index: 1}}}
	fake := func(name string, v scanner.Verdict) fakeScanner {
		return fakeScanner{name: name, result: scanner.Result{Verdict: v, Name: "N"}}
	}
	down := fakeScanner{name: "down", err: errors.New("no answer\nline")}
	clean, infected := fake("clean", scanner.Clean), fake("clamd", scanner.Virus)
	const field = "JX-Scan-Results 1\n"
	tests := []struct {
		name     string
		scanners []fakeScanner
		flags    []string
		want     []string
		not      string
		asked    string
	}{
		{"none", nil, nil, []string{field, "HX-Filtered-By"}, "NX-Scan", ""},
		{"clean", []fakeScanner{clean}, nil, []string{field, "NX-Scan-Results 0 mx.example.org;%0A%09clean=clean%20(N)\n", "HX-Filtered-By"}, "", "clean"},
		{"virus", []fakeScanner{infected, clean}, nil, []string{"B554 5.7.1 message%20contains%20a%20virus:%20N\n"}, "", "clamd"},
		{"virus, discarded", []fakeScanner{infected}, []string{"--on-virus=discard"}, []string{"D\n"}, "", "clamd"},
		{"virus, marked", []fakeScanner{infected, clean}, []string{"--on-virus=mark"}, []string{"HX-Filter-Warning message%20contains", "clamd=virus%20(N);%0A%09clean=clean"}, "HX-Filtered-By", "clamd clean"},
		{"spam", []fakeScanner{{name: "rspamd", result: spamFields}}, nil, []string{"HX-Filter-Warning message%20looks%20like%20spam\n", "rspamd=spam%20(add%20header)%20score=7.0/15.0%20symbols=A,B",
			"JX-Spam 2\nJX-Old 1\nJX-Spam 1\nISubject 1 [spam]%20x\nHX-Spam yes\nNX-Top 1 yes\n"}, "HX-Filtered-By", "rspamd"},
		{"spam, refused", []fakeScanner{{name: "rspamd", result: spamFields}}, []string{"--on-spam=reject"}, []string{"B554"}, "", "rspamd"},
		{"spam, ignored", []fakeScanner{fake("spamd", scanner.Spam)}, []string{"--on-spam=none"}, []string{"spamd=spam"}, "Warning", "spamd"},
		{"refused", []fakeScanner{fake("rspamd", scanner.Refuse)}, nil, []string{"B554 5.7.1 message%20refused%20as%20spam\n"}, "", "rspamd"},
		{"deferred", []fakeScanner{fake("rspamd", scanner.Defer), clean}, nil, []string{"T451 4.7.1 try%20again%20later\n"}, "", "rspamd"},
		{"thrown away", []fakeScanner{fake("rspamd", scanner.Discard)}, nil, []string{"D\n"}, "", "rspamd"},
		{"down", []fakeScanner{down, clean}, nil, []string{"T451 4.7.1 message%20could%20not%20be%20scanned"}, "", "down"},
		{"down, marked", []fakeScanner{down, clean}, []string{"--on-scanner-failure=mark"}, []string{"HX-Filter-Warning message%20could", "down=failed;%0A%09clean=clean"}, "HX-Filtered-By", "down clean"},
		{"down, ignored", []fakeScanner{down, infected}, []string{"--on-scanner-failure=none"}, []string{"B554"}, "", "down clamd"},
		{"too large", []fakeScanner{infected}, []string{"--scan-max-size=10"}, []string{"scan=skipped%20(too%20large)"}, "B554", ""},
		{"no field", []fakeScanner{clean}, []string{"--scan-header="}, []string{"HX-Filtered-By"}, "X-Scan-Results", "clean"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := settings(t, append(tt.flags, "--authserv-id=mx.example.org")...)
			var asked []string
			var log bytes.Buffer
			s.log = &log
			for _, f := range tt.scanners {
				f.asked = &asked
				s.scanners = append(s.scanners, f)
			}
			got := scanWith(t, s, "Subject: x\n\nhello\n", "X-Scan-Results: forged\nX-Old: x\nSubject: x\n")
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("RESULTS %q, without %q", got, want)
				}
			}
			if tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("RESULTS %q, with %q", got, tt.not)
			}
			if strings.Join(asked, " ") != tt.asked {
				t.Errorf("asked %q, want %q", asked, tt.asked)
			}
			for line := range strings.Lines(log.String()) {
				if !strings.HasPrefix(line, "AB12: ") {
					t.Errorf("line %q in the log", line)
				}
			}
			if len(tt.scanners) > 0 && tt.asked != "" && !strings.Contains(log.String(), tt.scanners[0].name+"=") {
				t.Errorf("log %q", log.String())
			}
		})
	}
}

// TestScannersAreNotAsked about messages that are refused anyway.
func TestScannersAreNotAsked(t *testing.T) {
	var asked []string
	s := settings(t)
	s.scanners = append(s.scanners, fakeScanner{name: "clamd", asked: &asked})
	got := scanWith(t, s, attachment("Content-Disposition: attachment; filename=a.exe"), "")
	if !strings.HasPrefix(got, "B554") || len(asked) > 0 {
		t.Errorf("RESULTS %q, asked %q", got, asked)
	}
}

func TestScannerSettings(t *testing.T) {
	for _, flags := range [][]string{{"--clamd=x"}, {"--spamd=host"}, {"--rspamd=:1"}, {"--scan-command=clamscan -"}, {"--scan-timeout=1ms"}, {"--scan-header=a b"}} {
		var s Settings
		if _, err := s.parse(append([]string{"--config", "/dev/null"}, flags...)); err == nil {
			t.Errorf("%q is taken", flags)
		}
	}
	s := settings(t, "--clamd=/run/clamd", "--clamd=127.0.0.1:3310", "--rspamd=127.0.0.1:11333", "--spamd=127.0.0.1:783", "--scan-command=/bin/true", "--scan-command=/bin/false x")
	var names []string
	for _, one := range s.scanners {
		names = append(names, one.Name())
	}
	if got := strings.Join(names, " "); got != "clamd true false rspamd spamd" {
		t.Errorf("scanners %s", got)
	}
}
