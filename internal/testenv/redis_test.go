package testenv

import "testing"

func TestRedis(t *testing.T) { EachStore(t, testStore) }

func testStore(t *testing.T, program string) {
	s := StartStore(t, program)
	if got := s.Do("SET", "a", "b"); got != "OK" {
		t.Errorf("SET: %q", got)
	}
	s.Kill()
	s.Start()
	if got := s.Do("EXISTS", "a"); got != "0" {
		t.Errorf("after a new start: %q, want nothing kept", got)
	}
}

func TestSentinels(t *testing.T) {
	EachStore(t, func(t *testing.T, program string) { StartSentinels(t, program) })
}

func TestRedisCluster(t *testing.T) {
	EachStore(t, func(t *testing.T, program string) { StartCluster(t, program) })
}
