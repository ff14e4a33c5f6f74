package workdir

import "sync/atomic"

// Waiting is a message that waits in a Backlog.
type Waiting struct {
	QID   string
	Why   string // it waits; may be empty
	Files *Snapshot

	size int64 // of the files, in bytes
}

// Backlog is messages that wait for something that holds nothing up. It is bounded by the capacity of C and in bytes:
// each that waits has five descriptors, and its files have their room in the spool although they have no names any more.
type Backlog struct {
	C     chan Waiting
	Bytes atomic.Int64 // of the files of those that wait or are at work
}

// Offer has a message wait if it fits in, with no more than so many bytes in all. It does not wait itself; the files of
// a message that does not fit in are closed.
func (b *Backlog) Offer(m Waiting, most int64) bool {
	m.size = m.Files.Size()
	if b.Bytes.Add(m.size) <= most {
		select {
		case b.C <- m:
			return true
		default:
		}
	}
	b.Done(m)
	return false
}

// Done gives back what a message from C has.
func (b *Backlog) Done(m Waiting) {
	m.Files.Close()
	b.Bytes.Add(-m.size)
}
