package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/filters/filter-basic/scanner"
)

// TestWRK_28_ManyReservedFields has messages with fields that only this host may add, more of them than RESULTS has room
// to remove. They are refused as too complex, however they are marked: no worker fails, and none is delivered with them.
func TestWRK_28_ManyReservedFields(t *testing.T) {
	const bad = "Content-Disposition: attachment; filename=a.exe\n"
	own := func(n int) string { return strings.Repeat("Authentication-Results: mx.example.org; spf=pass\n", n) }
	scans := fakeScanner{name: "rspamd", asked: new([]string), result: scanner.Result{Remove: []scanner.Field{{Name: "X-Spam-Flag"}, {Name: "X-Other", Index: 3}}}}
	tests := []struct {
		name, fields string
		n            int // of deletions, if they are made; one is of X-Other
	}{
		{"as many as there may be", strings.Repeat("X-Filtered-By: x\n", maxRemoved-1), maxRemoved},
		{"one more", strings.Repeat("X-Filtered-By: x\n", maxRemoved), 0},
		{"4000", strings.Repeat("x-filtered-by:\n", 4000), 0},
		{"of ambiguities", strings.Repeat("MIME-Ambiguity-Results: x\n", 4000), 0},
		{"of scanners", strings.Repeat("X-SCAN-results: x\n", 4000), 0},
		{"of each name some", strings.Repeat("X-Filtered-By: x\nMIME-Ambiguity-Results: x\nX-Scan-Results: x\n", maxRemoved/3+1), 0},
		{"that a scanner removes", strings.Repeat("X-Spam-Flag: NO\n", 4000), 0},
		{"forged results", own(4000), 0},
		{"some forged results", own(maxRemoved - 1), maxRemoved},
		{"forged results and others", own(maxRemoved-1) + "X-Filtered-By: x\n", 0},
		{"results of others", strings.ReplaceAll(own(4000), "mx.example.org", "other.test"), 0},
	}
	for _, tt := range tests {
		for policy, verdict := range map[string]string{"reject": "B554 5.7.1 message%20has%20too%20many%20fields", "tempfail": "T451 4.7.1 message%20has%20too%20many%20fields",
			"mark": "B554 5.7.1 message%20has%20too%20many%20fields"} {
			t.Run(tt.name+"/"+policy, func(t *testing.T) {
				s := settings(t, "--on-blocked=mark", "--on-complex="+policy, "--authenticate", "--trusted-networks=0.0.0.0/0", "--authserv-id=mx.example.org")
				s.log = &bytes.Buffer{}
				s.scanners = append(s.scanners, scans)
				headers := "From: a@b\n" + tt.fields
				got := scanWith(t, s, headers+bad+"\nx\n", headers+bad)
				if tt.n > 0 || tt.name == "results of others" {
					verdict = "HX-Filter-Warning attachment"
				}
				deleted := strings.Count(got, "\nJ")
				if !strings.Contains(got, verdict) || !strings.HasSuffix(got, "F\n") || tt.n > 0 && deleted != tt.n || tt.n == 0 && deleted > 1 {
					t.Errorf("RESULTS %.300q, %d deletions; want %q, %d", got, deleted, verdict, tt.n)
				}
			})
		}
	}
	path := filepath.Join(t.TempDir(), "m.eml")
	if err := os.WriteFile(path, []byte(strings.Repeat("X-Filtered-By: x\n", maxRemoved+1)+"\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings(t, "--on-complex=mark")
	s.Explain.Files = []string{path}
	var out bytes.Buffer
	if status := s.explain(&out, &out); status != 1 || !strings.Contains(out.String(), "reject: message has too many fields") {
		t.Errorf("explain: %d, %s", status, out.String())
	}
}
