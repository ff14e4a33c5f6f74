package config

import (
	"errors"
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

// TestPlaceOfWhatValidateRefuses sees that an error of Validate names the line that the value stands on, also that of
// a list, and none for a value from elsewhere.
func TestPlaceOfWhatValidateRefuses(t *testing.T) {
	const text = "# comment\nserver good\n\nserver bad\nlevel high\n"
	for _, tt := range []struct {
		name    string
		invalid Error
		args    []string
		want    string
	}{
		{"scalar", Error{Key: "level"}, nil, ":5: level: no"},
		{"list", Error{Key: "server", Value: "bad"}, nil, ":4: server: no"},
		{"list, any", Error{Key: "server"}, nil, ":2: server: no"},
		{"default", Error{Key: "size"}, nil, "size: no"},
		{"command line", Error{Key: "level"}, []string{"--level=low"}, "level: no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := writeFile(t, text)
			tt.invalid.Err = errors.New("no")
			p := Parser{Program: "a-b", DefaultFile: file}
			_, err := p.Parse(&testSettings{invalid: &tt.invalid}, tt.args)
			want := tt.want
			if strings.HasPrefix(want, ":") {
				want = file + want
			}
			if err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}
