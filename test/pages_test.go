package test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// programs lists every program of the suite with the section of its page.
var programs = map[string]string{
	"smtp-proxy":    "8",
	"multiplexor":   "8",
	"mx-ctrl":       "8",
	"pop3-stamp":    "8",
	"postern-board": "8",
	"filter-basic":  "8",
	"notify-cat":    "1",
	"notify-exec":   "1",
	"notify-wait":   "1",
}

// daemons have a settings file and a unit.
var daemons = []string{"smtp-proxy", "multiplexor", "pop3-stamp", "postern-board"}

// notSettings are flags that mean something on the command line only.
var notSettings = []string{"help", "config", "check", "reload", "take-over", "version"}

func readTree(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), name))
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// flag is an option as --help shows it; one of the names may be empty.
type flag struct{ short, long string }

var flagLine = regexp.MustCompile(`(?m)^\s{1,8}(?:-([A-Za-z0-9])\b)?(?:, )?(?:\s{0,4}--(?:\[no-\])?([a-z0-9][a-z0-9-]*))?`)

// flags asks the real program for its options.
func flags(t *testing.T, program string) []flag {
	t.Helper()
	stdout, stderr, status := testenv.Run(t, testenv.Binary(t, program), "--help")
	if status != 0 {
		t.Fatalf("%s --help: status %d\n%s", program, status, stderr)
	}
	var found []flag
	for _, m := range flagLine.FindAllStringSubmatch(stdout, -1) {
		if m[1] != "" || m[2] != "" {
			found = append(found, flag{m[1], m[2]})
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s --help shows no flags:\n%s", program, stdout)
	}
	return found
}

var (
	itemLine  = regexp.MustCompile(`(?m)^\.It .*$`)
	longItem  = regexp.MustCompile(`\bFl (?:Fl |-)([a-z0-9][a-z0-9-]*)`)
	shortItem = regexp.MustCompile(`\bFl ([A-Za-z0-9])(?:\s|$)`)
)

func TestConventionEveryFlagIsInItsPage(t *testing.T) {
	t.Parallel()
	for program, section := range programs {
		t.Run(program, func(t *testing.T) {
			page := readTree(t, "man/"+program+"."+section)
			long, short := make(map[string]bool), make(map[string]bool)
			for _, item := range itemLine.FindAllString(page, -1) {
				for _, m := range longItem.FindAllStringSubmatch(item, -1) {
					long[m[1]] = true
				}
				for _, m := range shortItem.FindAllStringSubmatch(item, -1) {
					short[m[1]] = true
				}
			}
			for _, f := range flags(t, program) {
				if f.long != "" && !long[f.long] {
					t.Errorf("no item for --%s", f.long)
				}
				if f.short != "" && !short[f.short] {
					t.Errorf("no item for -%s", f.short)
				}
				delete(long, f.long)
				delete(short, f.short)
			}
			for name := range long {
				if name != "help" {
					t.Errorf("item for --%s, which --help does not show", name)
				}
			}
		})
	}
}

func TestConventionEverySettingIsInTheSample(t *testing.T) {
	t.Parallel()
	for _, program := range daemons {
		t.Run(program, func(t *testing.T) {
			sample := readTree(t, "etc/"+program+".conf")
			keys := make(map[string]bool)
			for _, f := range flags(t, program) {
				if f.long == "" || slices.Contains(notSettings, f.long) {
					continue
				}
				keys[f.long] = true
				if !regexp.MustCompile(`(?m)^#?\s?` + regexp.QuoteMeta(f.long) + `(\s|$)`).MatchString(sample) {
					t.Errorf("no line for %s", f.long)
				}
			}
			// A line that sets something is a key and its value; in a comment it
			// follows the # at once or after one space.
			for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*)\s`).FindAllStringSubmatch(sample, -1) {
				if !keys[m[1]] {
					t.Errorf("sets %s, which is no setting", m[1])
				}
			}
			file := filepath.Join(t.TempDir(), program+".conf") // that of a checkout may be for a group to write
			if err := os.WriteFile(file, []byte(sample), 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{"--config", file, "--check"}
			if program == "multiplexor" { // what an installation has
				args = append(args, "--worker", testenv.Binary(t, "filter-basic"), "--spool", t.TempDir())
			}
			stdout, stderr, status := testenv.Run(t, testenv.Binary(t, program), args...)
			if status != 0 {
				t.Errorf("--check of the sample: status %d\n%s%s", status, stdout, stderr)
			}
		})
	}
}

func TestConventionPagesAreWellFormed(t *testing.T) {
	t.Parallel()
	mandoc := testenv.Path(t, "check of the manual pages", "mandoc")
	pages, err := filepath.Glob(filepath.Join(testenv.Root(t), "man", "*.[1-9]"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manual pages: %v", err)
	}
	for _, page := range pages {
		stdout, stderr, status := testenv.Run(t, mandoc, "-T", "lint", "-W", "warning", page)
		if status != 0 || stdout+stderr != "" {
			t.Errorf("mandoc: status %d\n%s%s", status, stdout, stderr)
		}
	}
}

func TestConventionMakefileBuildsEveryProgram(t *testing.T) {
	t.Parallel()
	makefile := readTree(t, "Makefile")
	_, sources, _ := strings.Cut(makefile, "SOURCES  =")
	sources, _, _ = strings.Cut(sources, "\n\n")
	there := strings.Fields(strings.ReplaceAll(sources, "\\\n", " "))
	for pkg, layer := range layers {
		if layer == program && !strings.HasPrefix(pkg, "test/") {
			if !slices.Contains(there, "./"+pkg) {
				t.Errorf("make does not build %s", pkg)
			}
			if _, known := programs[filepath.Base(pkg)]; !known {
				t.Errorf("%s is not in the list of programs with a page", pkg)
			}
		}
	}
}

// TestConventionMigrationNamesSettings: what postern-migrate(7) says that settings of other programs are called here is a
// setting of one of the programs.
func TestConventionMigrationNamesSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"DIR": true}
	for _, program := range append([]string{"filter-basic"}, daemons...) {
		for _, f := range flags(t, program) {
			known[f.long] = true
		}
	}
	said := regexp.MustCompile(`(?m)(?:^\.| Ta |Pq )Ar ([a-z0-9 ,-]+)`).FindAllStringSubmatch(readTree(t, "man/postern-migrate.7"), -1)
	if len(said) < 70 {
		t.Errorf("only %d settings are named", len(said))
	}
	for _, m := range said {
		for name := range strings.FieldsFuncSeq(m[1], func(r rune) bool { return r == ' ' || r == ',' }) {
			if !known[name] {
				t.Errorf("%s is no setting", name)
			}
		}
	}
}
