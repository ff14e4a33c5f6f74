package testenv

import (
	"testing"
	"time"
	"unsafe"
)

// Jumped returns the moment t on a machine whose clock was set forward by that much after the program began: the wall
// clock's part of t is another, the monotonic one is the same.
func Jumped(t testing.TB, moment time.Time, by time.Duration) time.Time {
	t.Helper()
	other := moment
	// time.Time begins with the wall clock: 1 bit for a monotonic reading, 33 of seconds, 30 of nanoseconds.
	wall := (*uint64)(unsafe.Pointer(&other))
	*wall += uint64(int64(by/time.Second)) << 30
	if other.Sub(moment) != 0 || other.Unix()-moment.Unix() != int64(by/time.Second) {
		t.Fatalf("%v is not %v with its clock set by %v", other, moment, by)
	}
	return other
}
