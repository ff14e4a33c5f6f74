package main

import (
	"fmt"
	"os"
	"strings"
)

// block gives the n-th literal block of a section of a manual page, as a reader copies it.
func block(page, section string, n int) (string, error) {
	text, err := os.ReadFile("man/" + page)
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(string(text), section+"\n")
	for ; found; n-- {
		if _, rest, found = strings.Cut(rest, ".Bd -literal -offset indent\n"); !found {
			break
		}
		block, after, _ := strings.Cut(rest, ".Ed\n")
		if n == 0 {
			return strings.NewReplacer(`\e`, `\`, `\&`, "", "/usr/share/doc", "/usr/local/share/doc").Replace(block), nil
		}
		rest = after
	}
	return "", fmt.Errorf("%s has no such block in %q", page, section)
}

// blocks gives all of the given ones.
func blocks(page, section string, numbers ...int) ([]string, error) {
	var found []string
	for _, n := range numbers {
		b, err := block(page, section, n)
		if err != nil {
			return nil, err
		}
		found = append(found, b)
	}
	return found, nil
}
