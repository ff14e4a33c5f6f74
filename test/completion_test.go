package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// completionShells are the shells that are told how to complete.
var completionShells = []string{"bash", "zsh", "fish"}

// completionScript has a program write its script for a shell, and gives the file.
func completionScript(t *testing.T, program, shell, dir string) string {
	t.Helper()
	stdout, stderr, status := testenv.Run(t, testenv.Binary(t, program), "--completion", shell)
	if status != 0 || stderr != "" {
		t.Fatalf("%s --completion %s: status %d\n%s", program, shell, status, stderr)
	}
	file := filepath.Join(dir, map[string]string{"bash": program, "zsh": "_" + program, "fish": program + ".fish"}[shell])
	if err := os.WriteFile(file, []byte(stdout), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// completionStarts makes a shell that is typed at put in all that it would offer, at ESC *.
var completionStarts = map[string]string{
	"bash": "set -o emacs; for f in DIR/*; do source $f; done\n",
	"zsh": "fpath=(DIR $fpath); autoload -U compinit; compinit -D -u; bindkey -e\n" +
		"everything() { _main_complete; compstate[insert]=all; compstate[list]=; }; zle -C everything complete-word everything; bindkey '^[*' everything\n",
}

// typed types command lines at a shell, has it put in all that it would offer at their ends, and gives for each what the
// program was then started with.
func typed(t *testing.T, shell, dir string, lines []string) [][]string {
	t.Helper()
	input := strings.ReplaceAll(completionStarts[shell], "DIR", dir) + "n=0\n"
	for program := range programs {
		input += program + "() { printf '%s\\n' \"$@\" >out.$n; }\n"
	}
	for _, line := range lines {
		input += line + "\x1b*\n((++n))\n"
	}
	cmd := exec.Command("script", "-qec", map[string]string{"bash": "bash --norc --noprofile -i", "zsh": "zsh -f -i"}[shell], os.DevNull)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(input+"exit\n")
	cmd.Env = append(os.Environ(), "TERM=dumb", "HISTFILE=", "HOME="+dir)
	said, stderr, _ := testenv.RunCmd(t, cmd)
	started := make([][]string, len(lines))
	for i, line := range lines {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("out.%d", i)))
		if err != nil {
			t.Fatalf("%s: %v\n%s%s", line, err, said, stderr)
		}
		started[i] = strings.Fields(string(text))
	}
	return started
}

// offered asks fish what it would offer at the end of a command line.
func offered(t *testing.T, script, line string) []string {
	t.Helper()
	stdout, stderr, status := testenv.Run(t, "fish", "--no-config", "-c", "source "+script+"; complete -C "+shellWord(line))
	if status != 0 || stderr != "" {
		t.Fatalf("fish: status %d\n%s%s", status, stdout, stderr)
	}
	var words []string
	for line := range strings.Lines(stdout) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		words = append(words, word)
	}
	return words
}

// shellWord makes a text one word.
func shellWord(text string) string { return "'" + strings.ReplaceAll(text, "'", `\'`) + "'" }

// completionCases are ends of command lines and what can come there.
var completionCases = []struct {
	line string
	want []string
	more bool // other words can come as well
}{
	{"smtp-proxy --upstream-t", []string{"--upstream-timeout", "--upstream-tls", "--upstream-tls-ca", "--upstream-tls-cert", "--upstream-tls-key"}, false},
	{"smtp-proxy --upstream-tls ", []string{"may", "none", "require", "verify"}, false},
	{"smtp-proxy --upstream-tls=v", []string{"verify"}, false},
	{"smtp-proxy --scan=", []string{"no", "yes"}, false},
	{"smtp-proxy ", []string{"explain", "held", "log", "replay"}, false},
	{"smtp-proxy explain --", []string{"--client", "--listener", "--upstream"}, true},
	{"smtp-proxy --config x explain --listener ", []string{"smtp", "smtps", "submission"}, false},
	{"smtp-proxy --user roo", []string{"root"}, false},
	{"pop3-stamp list --format ", []string{"json", "table"}, false},
	{"pop3-stamp re", []string{"revoke"}, false},
	{"multiplexor --reload ", []string{"classic", "two-generation"}, false},
	{"multiplexor --worker /etc/passw", []string{"/etc/passwd"}, true},
	{"filter-basic explain /etc/passw", []string{"/etc/passwd"}, true},
	{"mx-ctrl rawhload-", []string{"rawhload-recipok", "rawhload-relayok", "rawhload-senderok"}, false},
	{"notify-cat --color ", []string{"always", "auto", "never"}, false},
	{"notify-exec --de", []string{"--dead-man", "--debounce"}, false},
	{"notify-wait idl", []string{"idle"}, true},
}

// TestCompletion asks the shells themselves.
func TestCompletion(t *testing.T) {
	t.Parallel()
	var lines []string
	for _, c := range completionCases {
		lines = append(lines, c.line)
	}
	for _, shell := range completionShells {
		t.Run(shell, func(t *testing.T) {
			testenv.Need(t, "completion for "+shell, shell, "script")
			dir := testenv.ShortDir(t)
			for program := range programs {
				completionScript(t, program, shell, dir)
			}
			var started [][]string
			if shell != "fish" {
				started = typed(t, shell, dir, lines)
			}
			for i, c := range completionCases {
				var got []string
				if shell == "fish" && strings.HasSuffix(c.line, "=") {
					continue // it has no values that may be missing
				}
				if shell == "fish" {
					program, _, _ := strings.Cut(c.line, " ")
					got = offered(t, filepath.Join(dir, program+".fish"), c.line)
				} else if there := len(strings.Fields(c.line[:strings.LastIndex(c.line, " ")])) - 1; len(started[i]) >= there {
					got = started[i][there:] // without what was typed before the last word
				}
				for j := range got { // of --flag=value the value
					got[j] = got[j][strings.LastIndex(got[j], "=")+1:]
				}
				slices.Sort(got)
				if missing := slices.DeleteFunc(slices.Clone(c.want), func(w string) bool { return slices.Contains(got, w) }); len(missing) > 0 || !c.more && !slices.Equal(got, c.want) {
					t.Errorf("%s: offers %q, want %q", c.line, got, c.want)
				}
			}
		})
	}
}

// TestConventionCompletionsKnowEveryFlag: whatever --help shows is in the script for each shell.
func TestConventionCompletionsKnowEveryFlag(t *testing.T) {
	t.Parallel()
	for program := range programs {
		for _, shell := range completionShells {
			text, err := os.ReadFile(completionScript(t, program, shell, t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range flags(t, program) {
				want := map[string]string{"bash": "--" + f.long, "zsh": "--" + f.long, "fish": "-l " + f.long}[shell]
				if f.long != "" && !regexp.MustCompile(regexp.QuoteMeta(want)+`\b`).Match(text) {
					t.Errorf("%s for %s: no --%s", program, shell, f.long)
				}
			}
		}
	}
}
