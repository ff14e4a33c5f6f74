package main

import (
	"bytes"

	"postern/internal/percent"
	"postern/multiplexor/pool"
)

// socketMap is the protocol of Sendmail's socket map: netstrings both ways, one lookup
// after the other. Whoever may not connect is told nothing: there is no reply that a client
// would read without having asked.
var socketMap = &protocol{
	persistent: true,
	ahead:      2 * (maxNetstring + maxNetstringLength + 2),
	take:       takeLookup,
	answer: func(line []byte) []byte { // decoded as a whole
		return []byte(percent.Decode(string(bytes.TrimSuffix(line, []byte("\n")))))
	},
	failure: func(s *server, why pool.Failure) []byte {
		if why == pool.FailStart {
			s.log.Add(levelWarning, "map command failed: No free workers")
		}
		return []byte(mapReplies[why])
	},
}

// mapReplies are the answers to lookups that no worker answered. A broken worker
// and one that takes too long are told alike, as the original does.
var mapReplies = [pool.Failures]string{
	pool.FailNoFree:     "TEMP No free workers",
	pool.FailStart:      "TEMP Unable to activate worker",
	pool.FailQueue:      "TEMP No free workers",
	pool.FailTalk:       "TEMP Error talking to worker process",
	pool.FailDied:       "TEMP Busy timeout on worker",
	pool.FailTimeout:    "TEMP Busy timeout on worker",
	pool.FailOverloaded: "TEMP Busy timeout on worker",
	pool.FailDomain:     "TEMP No free workers",
	pool.FailAnswer:     "TEMP Busy timeout on worker",
	pool.FailPoison:     "TEMP No free workers",
	pool.FailShutdown:   "TEMP No free workers",
}

const (
	mapNoComma   = "PERM Netstring missing terminating comma"
	mapBadFormat = "PERM Invalid request format"
)

// takeLookup carries out the lookup that b begins with.
func takeLookup(c *client, b []byte) (taken int) {
	text, size, comma, err := readNetstring(b)
	if err != nil {
		c.close()
		return len(b)
	}
	if size == 0 {
		return 0
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	name, key, found := bytes.Cut(text, []byte(" "))
	switch {
	case !comma:
		c.reply([]byte(mapNoComma))
	case !found:
		c.reply([]byte(mapBadFormat))
	default:
		c.phase = waiting
		c.req.Set([]byte("map "+percent.Join(string(name), string(key))), pool.FromMap, c)
		c.server.pool.Submit(&c.req)
	}
	return size
}
