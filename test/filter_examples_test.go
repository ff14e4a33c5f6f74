package test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/percent"
	"postern/internal/testenv"
	"postern/internal/workdir"
)

// exampleWorkers are the workers under etc/examples, by what runs them.
var exampleWorkers = map[string]string{"filter.sh": "sh", "filter.py": "python3", "filter.pl": "perl"}

// TestFilterExamples asks the example workers of each language the same: their answers, and what they do to messages,
// are the same too.
func TestFilterExamples(t *testing.T) {
	t.Parallel()
	for name, interpreter := range exampleWorkers {
		t.Run(name, func(t *testing.T) {
			program := testenv.Path(t, "the example "+name, interpreter)
			spool := &workdir.Spool{Dir: testenv.ShortDir(t), Insecure: true}
			t.Cleanup(func() { _ = spool.Close() })
			messages := []struct{ subject, change, code, text string }{
				{"hello", "X-Seen", "", "by a filter, 100%, from 192.0.2.7"},
				{"you won the LOTTERY: 50% off\\", "", "554", `no thanks: you won the LOTTERY: 50% off\`},
				{"l\u00f6ttery \"x\"", "X-Seen", "", "by a filter, 100%, from 192.0.2.7"},
			}
			requests, want := "ping\nPing\nrelayok 192.0.2.7 h 1 192.0.2.1 25 Q\nhelook 192.0.2.7 h e 1 192.0.2.1 25 Q\n"+
				"senderok <> 192.0.2.7 h e /d Q\nrecipok <b@x.test> <> 192.0.2.7 h <b@x.test> e /d Q ? ? ?\n"+
				"recipok <nobody@100%25.test> <> 192.0.2.7 h <b@x.test> e /d Q ? ? ?\nscan Q /nonexistent/dir\nscan\n\nfoo\n",
				"PONG\nPONG\nok 1\nok 1\nok 1\nok 1\nok 0 no such user: <nobody@100%.test> 550 5.1.1\nerror: cannot scan\nerror: cannot scan\n"+
					"error: Unknown command\nerror: Unknown command\n"
			var dirs []*workdir.Dir
			for _, m := range messages {
				d := spooled(t, spool, m.subject)
				dirs = append(dirs, d)
				requests += "scan Q " + d.Path() + "\n"
				want += "ok\n"
			}
			cmd := exec.Command(program, filepath.Join(testenv.Root(t), "etc", "examples", name), "-server")
			cmd.Stdin = strings.NewReader(requests)
			stdout, stderr, status := testenv.RunCmd(t, cmd)
			if got := percent.Decode(stdout); got != want || status != 0 {
				t.Errorf("status %d, answers %q, want %q; errors %q", status, got, want, stderr)
			}
			for i, m := range messages {
				r, err := dirs[i].Results()
				if err != nil {
					t.Errorf("%s: %v", m.subject, err)
					continue
				}
				if m.change == "" && (r.Verdict != workdir.Reject || r.Code != m.code || r.Text != m.text) {
					t.Errorf("%s: %+v, want %q", m.subject, r, m.text)
				}
				if m.change != "" && (r.Verdict != workdir.Deliver || len(r.Changes) != 1 || r.Changes[0].Name != m.change || r.Changes[0].Value != m.text) {
					t.Errorf("%s: %+v, want %q", m.subject, r, m.text)
				}
			}
		})
	}
}

// spooled is the working directory of a message with that subject.
func spooled(t *testing.T, spool *workdir.Spool, subject string) *workdir.Dir {
	t.Helper()
	d, err := spool.Create(workdir.NewQueueID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Remove() })
	c, err := d.Content()
	if err == nil {
		_, err = c.Write([]byte("Subject: " + subject + "\r\n\r\nx\r\n"))
	}
	if err := errors.Join(err, d.Envelope(workdir.Envelope{ID: "a", Sender: "<>", ClientIP: "192.0.2.7"}), d.Finish()); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestFilterExamplesEncode has the helpers for percent-encoding in the examples take every byte there and back.
func TestFilterExamplesEncode(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for b := 1; b < 256; b++ {
		all.WriteByte(byte(b))
	}
	all.WriteString("%41%zz%%0A")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"filter.sh": `eval "$(sed '/^# scan DIR/,$d' "$0")"; text=$(cat "$1"; echo .); word=$(encode "${text%?}"); decode "$word"; printf '%s\n%s' "$word" "$text"`,
		"filter.py": "import sys\nsource = open(sys.argv[1]).read().split('\\ndef scan')[0]\nexec(source)\ntext = open(sys.argv[2], errors='surrogateescape', newline='').read()\n" +
			"word = encode(text)\nsys.stdout.buffer.write((word + '\\n' + decode(word)).encode(errors='surrogateescape'))",
		"filter.pl": `open my $s, '<', shift; local $/; my $source = <$s>; $source =~ s/^# Judges.*//ms; eval $source; die $@ if $@; open my $t, '<', shift; my $text = <$t>; ` +
			`my $word = encode($text); print "$word\n", decode($word)`,
	} {
		interpreter := testenv.Path(t, "the example "+name, exampleWorkers[name])
		file := filepath.Join(testenv.Root(t), "etc", "examples", name)
		args := []string{"-c", script, file, text}
		if name == "filter.pl" {
			args[0] = "-e"
		}
		stdout, stderr, _ := testenv.Run(t, interpreter, args...)
		word, back, _ := strings.Cut(stdout, "\n")
		want := all.String()
		if percent.Decode(word) != want || back != want || strings.ContainsAny(word, " \t\"'\\") {
			t.Errorf("%s: %q becomes %q and %q; %s", name, want, word, back, stderr)
		}
	}
}

// TestFilterPageGoExample has the compiler see the worker in Go that postern-filter(7) shows.
func TestFilterPageGoExample(t *testing.T) {
	t.Parallel()
	_, source, ok := strings.Cut(readTree(t, "man/postern-filter.7"), "\npackage main\n")
	source, _, ended := strings.Cut(source, ".Ed\n")
	if !ok || !ended {
		t.Fatal("the page has no example in Go")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	// The file is within the module, but in no directory of it.
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(testenv.Root(t), "filters", "pageexample", "main.go"): file}})
	if err := errors.Join(err, os.WriteFile(file, []byte("package main\n"+source), 0o600), os.WriteFile(filepath.Join(dir, "overlay"), overlay, 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", os.DevNull, "-overlay", filepath.Join(dir, "overlay"), "./filters/pageexample")
	cmd.Dir = testenv.Root(t)
	if stdout, stderr, status := testenv.RunCmd(t, cmd); status != 0 {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}
