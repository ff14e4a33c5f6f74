package mxproto

import "testing"

// FuzzStatusReplies: whatever a multiplexor, or a worker in its place, says to a question about the pool, it is
// understood or it is not.
func FuzzStatusReplies(f *testing.F) {
	for _, s := range []string{"BIS 3 4 5 1 60\n", "0 B 5678 scan last=scan ago=0 (a\nb)\n1 S ago=2\n", "1 2.5 3e1 4 5 6\n",
		"PID 3\nResidentKB 12\nCPUMilliseconds 7\n", "Working 2\nRereads 1\nReread failed x\nFault y\nFaultAge 3\n", "error: x\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		if s, ok := ParseStatus(reply); ok != (s.Letters != "") {
			t.Errorf("status of %q: %+v, %v", reply, s, ok)
		}
		workers, ok := ParseWorkers(reply)
		for i, w := range workers {
			if !ok || w.Slot != i || StateNames[w.State] == "" || w.Ago < 0 {
				t.Errorf("workers of %q: %+v", reply, workers)
			}
		}
		if u, ok := ParseUsage(reply, "3"); ok && (u.Memory < 0 || u.CPU < 0) {
			t.Errorf("usage of %q: %+v", reply, u)
		}
		ParseLoad(reply, true)
		ParseRecentLoad(reply)
		ParseHealth(reply)
	})
}
