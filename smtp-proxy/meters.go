package main

import (
	"strconv"
	"sync"
	"sync/atomic"
)

// meters are the figures of the server. The labels come from fixed lists, never from clients.
type meters struct {
	connections map[string]*atomic.Uint64 // by listener
	gates       map[string]*atomic.Uint64 // by gate
	replies     [6]atomic.Uint64          // by first digit
	messages    map[string]*atomic.Uint64 // by outcome
	bytes       atomic.Uint64
	upstream    atomic.Uint64
	filterBad   atomic.Uint64
	loadBad     atomic.Uint64
	once        sync.Once
}

var outcomes = []string{"accepted", "discarded", "deferred", "refused"}

func newMeters() *meters {
	m := &meters{connections: map[string]*atomic.Uint64{}, gates: map[string]*atomic.Uint64{}, messages: map[string]*atomic.Uint64{}}
	for _, name := range []string{listenSMTP, listenSubmission, listenSMTPS} {
		m.connections[name] = new(atomic.Uint64)
	}
	for _, name := range allGates {
		m.gates[name] = new(atomic.Uint64)
	}
	for _, name := range outcomes {
		m.messages[name] = new(atomic.Uint64)
	}
	return m
}

func (m *meters) connection(listener string) { count(m.connections, listener, 1) }
func (m *meters) gate(name string)           { count(m.gates, name, 1) }
func (m *meters) upstreamFault()             { m.upstream.Add(1) }
func (m *meters) filterFault()               { m.filterBad.Add(1) }
func (m *meters) loadFault()                 { m.loadBad.Add(1) }

// reply counts a reply by its class.
func (m *meters) reply(code int) {
	if class := code / 100; class < len(m.replies) {
		m.replies[class].Add(1)
	}
}

// message counts a message that was answered.
func (m *meters) message(outcome string, size int64) {
	count(m.messages, outcome, 1)
	m.bytes.Add(uint64(size))
}

func count(set map[string]*atomic.Uint64, name string, n uint64) {
	if c := set[name]; c != nil {
		c.Add(n)
	}
}

// className gives the label of a class of replies.
func className(class int) string { return strconv.Itoa(class) + "xx" }
