package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// budget is the one for bytes that are held for clients while their messages come in and go out.
type budget struct {
	limit int64
	used  atomic.Int64
}

// What a message takes of the budget. Content that goes to the server lies in one buffer until that is full;
// content that goes to a working directory in one for each of two files. The header that is sent on is there
// as it was read, as fields, and as it goes out.
const (
	streamCost   = 68 << 10
	filterCost   = 84 << 10
	headerCopies = 3
)

// take takes n bytes of the budget, if there are so many.
func (m *budget) take(n int64) bool {
	if m.used.Add(n) <= m.limit {
		return true
	}
	m.used.Add(-n)
	return false
}

func (m *budget) give(n int64) { m.used.Add(-n) }

// newBudget makes a budget of so many bytes; 0 stands for a quarter of what the process may have.
func newBudget(limit int64) *budget {
	if limit == 0 {
		limit = availableMemory("/") / 4
	}
	return &budget{limit: limit}
}

// availableMemory gives the memory of the machine whose files are below root, or the limit of a control group
// of this process, if that is smaller: cgroups(7).
func availableMemory(root string) int64 {
	least := int64(math.MaxInt64)
	text, _ := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 3 && words[0] == "MemTotal:" {
			if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
				least = n << 10
			}
		}
	}
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(groups)) {
		_, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "::") // the unified hierarchy
		for ; strings.HasPrefix(dir, "/"); dir = filepath.Dir(dir) {
			text, _ := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, "memory.max"))
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// reserve takes what the content of a message needs, and reports whether there was so much.
func (s *session) reserve(tx *transaction) bool {
	cost := int64(streamCost)
	if tx.filtered != nil {
		cost = filterCost
	}
	if tx.discard {
		cost = 0
	}
	if !s.srv.memory.take(cost) {
		return false
	}
	tx.memory += cost
	return true
}
