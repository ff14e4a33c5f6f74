package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestCodeIsGivenBack: of the code that the start needed little stays in memory.
func TestCodeIsGivenBack(t *testing.T) {
	r := startReal(t)
	r.want("ping", "PONG\n")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", r.proc.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, code, found := strings.Cut(string(text), " r-xp ")
	_, rest, _ := strings.Cut(code, "Size:")
	var size, resident int
	if _, err := fmt.Sscan(rest, &size); err != nil || !found {
		t.Fatalf("no code in the map: %v", err)
	}
	_, rest, _ = strings.Cut(rest, "Rss:")
	if _, err := fmt.Sscan(rest, &resident); err != nil {
		t.Fatal(err)
	}
	if resident > size/2 {
		t.Errorf("%d kB of %d kB of code are resident", resident, size)
	}
	r.end()
}
