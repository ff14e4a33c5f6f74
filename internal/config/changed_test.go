package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestChangedSecrets sees that a secret and a password in a URL count as changed, and are not shown.
func TestChangedSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "settings")
	read := func(text string) *Result {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var s struct {
			File
			Key   string `help:"Key." secret:""`
			Store string `help:"Store."`
			Other string `help:"Other."`
		}
		parser := Parser{Program: "test"}
		result, err := parser.Parse(&s, []string{"--config", file})
		if err != nil {
			t.Fatal(err)
		}
		var shown strings.Builder
		if err := result.Print(&shown); err != nil || strings.Contains(shown.String(), "hush") {
			t.Errorf("shown: %s, %v", shown.String(), err)
		}
		return result
	}
	before := read("key hush1\nstore redis://u:hush1@host/0\nother a\n")
	after := read("key hush2\nstore redis://u:hush2@host/0\nother a\n")
	if got := Changed(before, after); !slices.Equal(got, []string{"key", "store"}) {
		t.Errorf("changed: %q", got)
	}
	if got := Changed(after, after); len(got) > 0 {
		t.Errorf("changed though nothing is: %q", got)
	}
}
