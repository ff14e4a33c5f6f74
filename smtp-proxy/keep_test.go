package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/config"
	"postern/internal/testenv"
	"postern/smtp-proxy/filter"
)

// TestKeep: the message is kept, as the filter saw it and with what the filter said, when the settings say so.
func TestKeep(t *testing.T) {
	for _, tt := range []struct {
		name, results string
		args          []string
		reply, note   string // note "": it is not kept
	}{
		{"sample", "HX-A one\nF\n", []string{"--keep-sample=100%"}, "250", "sample\n"},
		{"slow", "F\n", []string{"--keep-slow=1ns"}, "250", "slow: "},
		{"failed", "nonsense", []string{"--keep-failed"}, "451", "failed: "},
		{"failed, accepted", "nonsense", []string{"--keep-failed", "--on-failure=accept"}, "250", "failed: "},
		{"not failed", "F\n", []string{"--keep-failed"}, "250", ""},
		{"not slow", "F\n", []string{"--keep-slow=1h"}, "250", ""},
		{"no sample", "F\n", []string{"--keep-sample=0%"}, "250", ""},
		{"not scanned", "F\n", []string{"--keep-sample=100%", "--scan=no"}, "250", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, scanWith(t, tt.results))
			dir := filepath.Join(t.TempDir(), "kept")
			if got := deliverThrough(t, b, m, filterMessage, append(tt.args, "--keep-dir", dir)...); !strings.HasPrefix(got, tt.reply) {
				t.Errorf("reply %q", got)
			}
			if tt.note == "" {
				if left, err := os.ReadDir(dir); err == nil {
					t.Errorf("kept are %v", left)
				}
				return
			}
			var kept []string
			testenv.Eventually(t, "the message is kept", func() bool {
				kept, _ = filepath.Glob(filepath.Join(dir, "[^.]*", "KEPT"))
				return len(kept) == 1
			})
			if note := readFile(t, kept[0]); !strings.HasPrefix(note, tt.note) {
				t.Errorf("note is %q", note)
			}
			at := filepath.Dir(kept[0])
			if got := readFile(t, filepath.Join(at, "RESULTS")); got != tt.results {
				t.Errorf("RESULTS is %q", got)
			}
			if got := readFile(t, filepath.Join(at, "INPUTMSG")); got != strings.NewReplacer("\r\n.\r\n", "\n", "\r\n..", "\n.", "\r\n", "\n").Replace(filterMessage) {
				t.Errorf("INPUTMSG is %q", got)
			}
			if got := readFile(t, filepath.Join(at, "COMMANDS")); !strings.Contains(got, "\nQ"+filepath.Base(at)+"\n") || !strings.HasSuffix(got, "F\n") {
				t.Errorf("COMMANDS of %s is %q", at, got)
			}
		})
	}
}

// TestKeepHarmsNothing: where nothing can be kept messages go their way.
func TestKeepHarmsNothing(t *testing.T) {
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	dir := filepath.Join(t.TempDir(), "kept")
	writeFile(t, dir, "no directory")
	p := startProxy(t, m.args(behind(b), "--keep-sample=100%", "--keep-dir="+dir)...)
	c := greeted(t, p.addr)
	for range 3 {
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		c.expect("250")
	}
	testenv.Eventually(t, "three failures are counted", func() bool { return p.kept.Counts().Failed.Load() == 3 })
	if !strings.Contains(p.log.String(), "message is not kept") {
		t.Error("the log does not say so")
	}
}

// TestKeepIsReloaded: what is kept is in force for sessions that begin after a reload.
func TestKeepIsReloaded(t *testing.T) {
	c := &live{settings: parseSettings(t, "--keep-sample=100%")}
	if why := c.keepReason(&filter.Result{}); why != "sample" {
		t.Errorf("kept because of %q", why)
	}
	if c.settings = parseSettings(t, "--keep-slow=10s"); c.keepReason(&filter.Result{Took: 9 * time.Second}) != "" || c.keepReason(&filter.Result{Took: 10 * time.Second}) != "slow: 10s" {
		t.Error("slow ones are others")
	}
}

// TestByChance: a share is met about as often as it says.
func TestByChance(t *testing.T) {
	for _, share := range []config.Share{0, 0.3, 1} {
		n := 0
		for range 10_000 {
			if byChance(share) {
				n++
			}
		}
		if want := int(share * 10_000); n < want-500 || n > want+500 || share != 0.3 && n != want {
			t.Errorf("%v of 10000 is %d", share, n)
		}
	}
}

// TestKeepDirCheck: --check warns where the user who serves could keep nothing.
func TestKeepDirCheck(t *testing.T) {
	t.Parallel()
	base := testenv.ShortDir(t)
	own, locked := testenv.DaemonDir(t, filepath.Join(base, "own")), filepath.Join(base, "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	account, drops := testenv.DaemonAccount()
	if drops { // there are others who may be the one who serves: they can read it
		if err := os.Chmod(locked, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := new(program)
	for dir, want := range map[string]string{
		own: "", filepath.Join(own, "kept"): "",
		locked: locked, filepath.Join(locked, "kept"): locked,
		filepath.Join(locked, "none", "kept"): "", // it is missed by the look at all directories
	} {
		p.settings = *parseSettings(t, "--keep-sample=1%", "--multiplexor=/m", "--keep-dir="+dir, "--user="+account)
		var got []string
		for _, text := range p.warnings(t.Context(), nil) {
			if strings.HasPrefix(text, "keep-dir") {
				got = append(got, text)
			}
		}
		if want == "" && got != nil || want != "" && (len(got) != 1 || !strings.Contains(got[0], want+": permission denied")) {
			t.Errorf("%s: %q", dir, got)
		}
	}
}

func TestKeepSettings(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"--keep-dir=kept", "keep-dir: \"kept\" is no absolute path"},
		{"--keep-dir=/var/spool/postern/", "keep-dir: is the spool"},
		{"--keep-dir=/var/spool/postern/mdefang-x", "keep-dir: has the name"}, {"--keep-dir=/var/spool/postern/aside-x/kept", "keep-dir: has the name"},
		{"--keep-sample=5", "percentage"}, {"--keep-sample=101%", "percentage"}, {"--keep-sample=-1%", "percentage"}, {"--keep-sample=NaN%", "percentage"},
		{"--shadow-share=x%", "percentage"}, {"--shadow-multiplexor=relative", "shadow-multiplexor: "}, {"--shadow-multiplexor=inet:x", "shadow-multiplexor: "},
		{"--keep-max=0", "keep-max: value is too small"}, {"--keep-max-size=1", "keep-max-size: value is too small"},
	} {
		s := &settings{}
		err := readSettings(s, []string{tt.arg, "--config", "/dev/null"})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.arg, err, tt.want)
		}
	}
	box := "--hold=maildir:" + t.TempDir()
	for _, below := range []string{"", "/new", "/kept"} {
		dir := strings.TrimPrefix(box, "--hold=maildir:") + below
		if err := readSettings(&settings{}, []string{box, "--keep-dir=" + dir, "--config", "/dev/null"}); err == nil || !strings.Contains(err.Error(), "keep-dir: is in the Maildir") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
