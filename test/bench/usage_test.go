package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"postern/internal/testenv"
)

func TestParseStat(t *testing.T) {
	got, ok := parseStat("42 (a ) Z (b) S 7 42 42 0 -1 4194304 100 0 0 0 150 50 30 20 20 0 1 0 12345 1 1\n")
	want := processEntry{parent: 7, state: 'S', cpu: 2 * time.Second, reaped: 500 * time.Millisecond}
	if !ok || got != want {
		t.Errorf("got %+v, %t, want %+v", got, ok, want)
	}
	if got, ok := parseStat("42 (a) Z 7"); ok {
		t.Errorf("a line cut short gives %+v", got)
	}
}

func TestTree(t *testing.T) {
	table := processMap{1: {}, 10: {parent: 1}, 11: {parent: 10}, 12: {parent: 11}, 13: {parent: 10}, 20: {parent: 1}}
	got := table.tree(10)
	slices.Sort(got)
	if want := []int{10, 11, 12, 13}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestUsageOfOurselves looks at a process that is known: this one.
func TestUsageOfOurselves(t *testing.T) {
	pid := os.Getpid()
	block := make([]byte, 64<<20)
	for i := range block {
		block[i] = byte(i)
	}
	before := cpu(pid)
	testenv.Eventually(t, "CPU time that is seen", func() bool {
		for i := range block {
			block[i]++
		}
		return cpu(pid)-before >= 30*time.Millisecond
	})
	if tree := treeCPU(pid); tree < before {
		t.Errorf("CPU time of the tree %v, of the process alone %v", tree, before)
	}
	for what, got := range map[string]int{"memory": memory(pid), "peak": peak(pid), "treeMemory": treeMemory(pid)} {
		if got < len(block) || got > 100*len(block) {
			t.Errorf("%s gives %d bytes, at least %d are in use", what, got, len(block))
		}
	}
	open := descriptors(pid)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if got := descriptors(pid); got != open+1 {
		t.Errorf("%d descriptors after opening one more than %d", got, open)
	}
	f.Close()
	_ = block[len(block)-1]
}
