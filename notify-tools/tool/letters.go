package tool

import "fmt"

// ParseLetters reads a list of letters, as in "YZ" or "*". Unlike a hub, which
// must pass over what it does not know, it refuses what is no letter.
func ParseLetters(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	for _, r := range s {
		if r < 'A' || r > 'Z' {
			return "", fmt.Errorf("types %q: %q is no upper-case letter", s, r)
		}
	}
	if s == "" {
		return "", fmt.Errorf("types: none given")
	}
	return s, nil
}
