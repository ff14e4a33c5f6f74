package testenv

import "testing"

func TestRedis(t *testing.T) {
	s := StartRedis(t)
	if got := s.Do("SET", "a", "b"); got != "OK" {
		t.Errorf("SET: %q", got)
	}
	s.Kill()
	s.Start()
	if got := s.Do("EXISTS", "a"); got != "0" {
		t.Errorf("after a new start: %q, want nothing kept", got)
	}
}

func TestSentinels(t *testing.T) { StartSentinels(t) }

func TestRedisCluster(t *testing.T) { StartCluster(t) }
