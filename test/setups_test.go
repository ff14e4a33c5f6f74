package test

import (
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestSetupWithScanners takes the settings of postern-setups(7) for the scanners, puts sockets of real ones in the place of
// those of their packages, and has each find its mark. The other set-ups are played by `make boot`.
func TestSetupWithScanners(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t) // rspamd and spamd become other users
	_, section, _ := strings.Cut(readTree(t, "man/postern-setups.7"), ".Sh WITH CLAMD, RSPAMD AND SPAMD\n")
	_, settings, _ := strings.Cut(section, "cat >/etc/postern/filter-basic.conf <<END\n")
	settings, _, _ = strings.Cut(settings, "END\n")
	sockets := map[string]string{
		"clamd": startScanner(t, "clamd", map[string]string{"clamd.conf": clamdSettings, "test.ndb": clamdSignatures}, "-c", "DIR/clamd.conf"),
		"rspamd": startScanner(t, "rspamd", map[string]string{"rspamd.conf": rspamdSettings, "rules.lua": rspamdRules, "tlds": "com\norg\n"},
			"-f", "-c", "DIR/rspamd.conf", "-u", "_rspamd", "-g", "_rspamd"),
		"spamd": startScanner(t, "spamd", map[string]string{"rules/local.cf": spamdSettings, "site/init.pre": spamdPlugins, "home/x": ""},
			"-L", "-x", "-m", "1", "--socketpath=DIR/spamd", "-C", "DIR/rules", "--siteconfigpath=DIR/site", "-H", "DIR/home", "-u", "nobody", "-s", "stderr"),
	}
	var flags []string
	for line := range strings.Lines(settings) {
		key, _, _ := strings.Cut(line, " ")
		flags = append(flags, "--"+key+"="+sockets[key])
	}
	if len(flags) != len(sockets) {
		t.Fatalf("the page has the settings %q", flags)
	}
	scanCases(t, []scanCase{
		{"clean", "Subject: x\n\nhello\n", []string{"clamd=clean", "rspamd=clean", "spamd=clean", "HX-Filtered-By"}},
		{"virus", "Subject: x\n\nPOSTERN-VIRUS\n", []string{"B554 5.7.1 message%20contains%20a%20virus"}},
		{"spam to rspamd", "Subject: spam\n\nhello\n", []string{"symbols=POSTERN_MARK"}},
		{"spam to spamd", "Subject: x\n\nPOSTERN-SPAM\n", []string{"symbols=POSTERN_TEST"}},
	}, flags...)
}

// TestConventionSetupsArePlayed: each section of postern-setups(7) that has something to copy is followed by a test.
func TestConventionSetupsArePlayed(t *testing.T) {
	t.Parallel()
	followed := readTree(t, "test/setups_test.go") + readTree(t, "test/boot/checks.go") + readTree(t, "test/boot/setups.go")
	played := 0
	for section := range strings.SplitSeq(readTree(t, "man/postern-setups.7"), "\n.Sh ") {
		name, text, _ := strings.Cut(section, "\n")
		if !strings.Contains(text, ".Bd -literal") {
			continue
		}
		played++
		if !strings.Contains(followed, name) {
			t.Errorf("nothing follows %q", name)
		}
	}
	if played < 10 {
		t.Errorf("only %d set-ups", played)
	}
}
