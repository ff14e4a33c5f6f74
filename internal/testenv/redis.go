package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// RedisServer is a real redis-server or valkey-server with settings of its own, on 127.0.0.1, that keeps nothing on disk.
type RedisServer struct {
	Port    int
	Dir     string
	Process *Process

	t       testing.TB
	program string
	args    []string
}

const redis, valkey = "redis-server", "valkey-server"

// EachStore runs a test with each program that serves as shared store: redis-server, and valkey-server where there is one.
// Not every release of Debian has that; test/peers.sh says so.
func EachStore(t *testing.T, run func(t *testing.T, program string)) {
	programs := []string{redis}
	if _, err := Find(valkey); err == nil {
		programs = append(programs, valkey)
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) { run(t, program) })
	}
}

// StartStore is StartRedis for one of these programs.
func StartStore(t testing.TB, program string, more ...string) *RedisServer {
	t.Helper()
	s := newStore(t, program, more...)
	s.Start()
	return s
}

// StartRedis starts a redis-server on a free port, with more settings as arguments, such as "--requirepass", "secret".
func StartRedis(t testing.TB, more ...string) *RedisServer {
	t.Helper()
	return StartStore(t, redis, more...)
}

// newStore is StartStore, but for the start.
func newStore(t testing.TB, program string, more ...string) *RedisServer {
	t.Helper()
	Need(t, program+" as shared store", program, "redis-cli")
	s := &RedisServer{Port: FreePort(t), Dir: ShortDir(t), t: t, program: program}
	s.args = append([]string{"--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "", "--appendonly", "no",
		"--unixsocket", s.Socket(), "--loglevel", "notice"}, more...)
	return s
}

// Start starts the server again after its end, with nothing in it.
func (s *RedisServer) Start() {
	s.t.Helper()
	s.Process = Start(s.t, exec.Command(Path(s.t, s.program+" as shared store", s.program), s.args...))
	s.Process.WaitOutput("eady to accept connections")
}

// Kill ends the server at once.
func (s *RedisServer) Kill() { s.Process.Kill() }

// Hang stops the server as by a debugger: it takes connections and answers nothing.
func (s *RedisServer) Hang() { s.Process.Stop(syscall.SIGSTOP) }

// Resume has a server that hangs go on.
func (s *RedisServer) Resume() { s.Process.Stop(syscall.SIGCONT) }

// Address gives HOST:PORT of the server.
func (s *RedisServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Socket is the server's UNIX socket.
func (s *RedisServer) Socket() string { return filepath.Join(s.Dir, "redis.sock") }

// URL is the server as a setting of ours.
func (s *RedisServer) URL() string { return "redis://" + s.Address() + "/0" }

// Do runs a command and returns what redis-cli prints of the answer.
func (s *RedisServer) Do(args ...string) string {
	s.t.Helper()
	return redisCLI(s.t, s.Port, args...)
}

func redisCLI(t testing.TB, port int, args ...string) string {
	t.Helper()
	out, errOut, status := Run(t, "redis-cli", append([]string{"-e", "-p", fmt.Sprint(port)}, args...)...)
	if status != 0 {
		t.Errorf("redis-cli %s: status %d: %s%s", strings.Join(args, " "), status, out, errOut)
	}
	return strings.TrimSpace(out)
}

// RedisSentinels are a master, a replica, and three Sentinels that watch them under the name "mymaster".
type RedisSentinels struct {
	Servers   []*RedisServer // the master first, as it begins
	Sentinels []int          // ports
}

// StartSentinels starts them, and waits until they know of each other.
func StartSentinels(t testing.TB, program string) *RedisSentinels {
	t.Helper()
	master := StartStore(t, program, "--repl-diskless-sync-delay", "0")
	replica := StartStore(t, program, "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port))
	r := &RedisSentinels{Servers: []*RedisServer{master, replica}}
	Eventually(t, "the replica follows the master", func() bool { return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up") })
	for range 3 {
		r.Sentinels = append(r.Sentinels, FreePort(t))
	}
	for i, port := range r.Sentinels {
		dir := ShortDir(t)
		conf := filepath.Join(dir, "sentinel.conf")
		text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel myid %040d\nsentinel monitor mymaster 127.0.0.1 %d 2\n"+
			"sentinel down-after-milliseconds mymaster 2000\nsentinel failover-timeout mymaster 4000\n"+
			"sentinel known-replica mymaster 127.0.0.1 %d\n", port, dir, i+1, master.Port, replica.Port)
		for k, other := range r.Sentinels { // else they take seconds to find each other
			if k != i {
				text += fmt.Sprintf("sentinel known-sentinel mymaster 127.0.0.1 %d %040d\n", other, k+1)
			}
		}
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := Start(t, exec.Command(Path(t, program+" as Sentinel", program), conf, "--sentinel"))
		p.WaitOutput("+monitor")
	}
	for _, port := range r.Sentinels {
		Eventually(t, "Sentinels know each other and the replica", func() bool {
			out := redisCLI(t, port, "SENTINEL", "MASTER", "mymaster")
			return fieldAfter(out, "num-slaves") == "1" && fieldAfter(out, "num-other-sentinels") == "2"
		})
	}
	return r
}

// fieldAfter is the line behind the one that is name.
func fieldAfter(text, name string) string {
	_, rest, _ := strings.Cut(text, name+"\n")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// Master is the server that Sentinels take for the master: on a busy machine that may not be the first one any more.
func (r *RedisSentinels) Master(t testing.TB) *RedisServer {
	t.Helper()
	out := redisCLI(t, r.Sentinels[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
	for _, s := range r.Servers {
		if strings.HasSuffix(out, "\n"+fmt.Sprint(s.Port)) {
			return s
		}
	}
	t.Fatalf("the master is %q, none of ours", out)
	return nil
}

// URL is the store as a setting of ours.
func (r *RedisSentinels) URL() string {
	return fmt.Sprintf("redis://127.0.0.1:%d/0?sentinel=mymaster&addr=127.0.0.1:%d&addr=127.0.0.1:%d", r.Sentinels[0], r.Sentinels[1], r.Sentinels[2])
}

// RedisCluster is a Cluster of three nodes without replicas.
type RedisCluster struct{ Nodes []*RedisServer }

// StartCluster starts one, and waits until all its slots are served.
func StartCluster(t testing.TB, program string) *RedisCluster {
	t.Helper()
	c := &RedisCluster{}
	var table string
	for i, slots := range []string{"0-5460", "5461-10922", "10923-16383"} {
		bus := FreePort(t)
		node := newStore(t, program, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(bus), "--cluster-node-timeout", "5000")
		c.Nodes = append(c.Nodes, node)
		table += fmt.Sprintf("%040d 127.0.0.1:%d@%d master - 0 0 %d connected %s\n", i+1, node.Port, bus, i+1, slots)
	}
	for i, node := range c.Nodes {
		// Each begins with what it would learn of the others.
		me := fmt.Sprintf("%040d", i+1)
		own := ""
		for line := range strings.Lines(table) {
			if strings.HasPrefix(line, me) {
				line = strings.Replace(line, " master", " myself,master", 1)
			}
			own += line
		}
		if err := os.WriteFile(filepath.Join(node.Dir, "nodes.conf"), []byte(own+"vars currentEpoch 3 lastVoteEpoch 0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		node.Start()
	}
	for _, node := range c.Nodes {
		Eventually(t, "the Cluster is whole", func() bool {
			info := node.Do("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return c
}

// URL is the store as a setting of ours.
func (c *RedisCluster) URL() string { return "redis://" + c.Nodes[0].Address() + "/?cluster=yes" }
