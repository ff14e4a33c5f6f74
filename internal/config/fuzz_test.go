package config

import (
	"errors"
	"strings"
	"testing"
)

// Whatever a settings file holds: an error names a line of it, and what is read
// has known keys, single lines and, but for lists, one value each.
func FuzzParseFile(f *testing.F) {
	for _, s := range []string{"a 1\n", "list x\nlist y\n", "# c\n\n \t a \t 1\r\nflag\n", "a = 1", "a \"\"", "\xff", "a\x00", "a\u0085b 1"} {
		f.Add([]byte(s))
	}
	kinds := map[string]keyKind{"a": keyScalar, "flag": keySwitch, "list": keyList}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := parseFile("file", data, func(key string) keyKind { return kinds[key] })
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 {
				t.Fatalf("error %v does not name a line", err)
			}
			return
		}
		for key, given := range values {
			if kinds[key] == keyUnknown {
				t.Fatalf("unknown key %q was read", key)
			}
			if kinds[key] != keyList && len(given) != 1 {
				t.Fatalf("%s has %d values", key, len(given))
			}
			for _, v := range given {
				if v.key != key || strings.ContainsAny(v.text, "\n\r\x00") || strings.TrimSpace(v.text) != v.text {
					t.Fatalf("bad value %+v", v)
				}
			}
		}
	})
}
