package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// isCrash says whether a line begins what a dying Go process writes.
func isCrash(line string) bool {
	for _, begin := range []string{"panic: ", "fatal error: ", "SIGQUIT: ", "runtime: ", "unexpected fault address "} {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return false
}

var goroutineHead = regexp.MustCompile(`^goroutine \d+ (gp=\S+ m=\S+ .*)?\[`)

// ofTests cuts the goroutines of a crash down to those of the tests that were
// running, and the one that panicked. When none of them is found all are shown:
// too much is better than nothing.
func ofTests(crash []string, running []*test) []string {
	var shown []string
	others, found := 0, len(running) == 0
	for _, part := range parts(crash) {
		switch {
		case !goroutineHead.MatchString(part[0]):
			shown = append(shown, part...)
		case ofAny(part, running):
			found = true
			shown = append(shown, part...)
		case strings.Contains(part[0], "[running") && !anyLine(part, "testing.(*M).startAlarm"):
			shown = append(shown, part...)
		default:
			others++
		}
	}
	if !found || others == 0 {
		return crash
	}
	return append(shown, fmt.Sprintf("(and %d other goroutines; `go test -run` of that test alone shows them)\n", others))
}

// parts cuts the lines before each goroutine, and behind the empty line at its
// end.
func parts(lines []string) [][]string {
	var all [][]string
	for i, line := range lines {
		if i == 0 || goroutineHead.MatchString(line) || lines[i-1] == "\n" && goroutineHead.MatchString(all[len(all)-1][0]) {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], line)
	}
	return all
}

// ofAny says whether it is the goroutine of one of the tests: one that the
// testing package started, with the test's function on its stack.
func ofAny(goroutine []string, running []*test) bool {
	if !anyLine(goroutine, "testing.tRunner(") {
		return false
	}
	return slices.ContainsFunc(running, func(t *test) bool {
		name, _, _ := strings.Cut(t.name, "/")
		return anyLine(goroutine, "."+name+"(") || anyLine(goroutine, "."+name+".func")
	})
}

func anyLine(lines []string, text string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) })
}
