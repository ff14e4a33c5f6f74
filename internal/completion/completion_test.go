package completion

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestPrint shows what becomes of each kind of flag and argument, and that help texts are data to all shells.
func TestPrint(t *testing.T) {
	var settings struct {
		Dir    string   `short:"d" placeholder:"DIR" help:"Isn't [read]: $(id). Never."`
		Listen []string `placeholder:"SPEC" help:"Listen here."`
		Level  string   `enum:"low,high" default:"low" help:"Level."`
		Lookup bool     `default:"true" help:"Look up."`
		Once   bool     `help:"Once."`
		Hidden bool     `hidden:"" help:"Hidden."`
		Serve  struct{} `cmd:"" default:"1" hidden:""`
		Show   struct {
			User string `placeholder:"USER" help:"Whose."`
			File string `arg:"" placeholder:"FILE" help:"Which."`
		} `cmd:"" help:"Shows it."`
	}
	k, err := kong.New(&settings, kong.Name("a-b"), kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	for shell, wanted := range map[string][]string{
		"bash": {
			"*' -d'|*' --dir'|*' --dir=') how=(-d)", "*' --listen'|*' --listen=') how=(-f)", "*' --level'|*' --level=') how=(-W 'low high')",
			"*' --lookup=') how=(-W 'yes no')", "show' --user'|show' --user=') how=(-u)", "show,*) how=(-f)", "how=(-W '-d --dir --listen --level --lookup --once')",
			"complete -F _a_b a-b",
		},
		"zsh": {
			`'(-d --dir)-d+[Isn'\''t \[read\]: $(id)]:dir:_directories'`, "'*--listen=[Listen here]:listen:_files'", "'(--level)--level=[Level]:level:(low high)'",
			"'(--lookup)--lookup=-[Look up]::lookup:(yes no)'", "'(--once)--once[Once]'", "'show:Shows it'", "'(--user)--user=[Whose]:user:_users'", "'1:file:_files'",
		},
		"fish": {
			`complete -c a-b -s d -l dir -x -a '(__fish_complete_directories)' -d 'Isn\'t [read]: $(id)'`, "-l listen -r -F -d", "-l level -x -a 'low high' -d 'Level'",
			"-n __fish_use_subcommand -a show -d 'Shows it'", "'__fish_seen_subcommand_from show' -l user -x -a '(__fish_complete_users)'",
			"'__fish_seen_subcommand_from show' -F",
		},
	} {
		var script strings.Builder
		if asked, err := Print(&script, k, []string{"--completion", shell}); !asked || err != nil {
			t.Errorf("%s: asked %v, error %v", shell, asked, err)
		}
		for _, want := range wanted {
			if !strings.Contains(script.String(), want) {
				t.Errorf("%s: no %q in\n%s", shell, want, &script)
			}
		}
		if got := script.String(); strings.Contains(got, "hidden") || strings.Contains(got, "serve") {
			t.Errorf("%s: what is hidden is shown:\n%s", shell, got)
		}
	}
	for _, args := range [][]string{nil, {"--completion"}, {"--once"}, {"--completion", "zsh", "x"}} {
		if asked, err := Print(&strings.Builder{}, k, args); asked || err != nil {
			t.Errorf("%q: asked %v, error %v", args, asked, err)
		}
	}
	if asked, err := Print(&strings.Builder{}, k, []string{"--completion", "csh"}); !asked || err == nil {
		t.Errorf("csh: asked %v, error %v", asked, err)
	}
}
