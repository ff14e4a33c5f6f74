package notify

import (
	"bufio"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestClassicListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(Options{})
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	if line, _ := r.ReadString('\n'); line != "*OK\n" {
		t.Fatalf("greeting %q", line)
	}
	c.Write([]byte("?FZ\n"))
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				h.Publish(Message{'F', "0"}, Message{'Y', ""}, Message{'Z', ""})
			}
		}
	}()
	for _, want := range []string{"F 0\n", "Z\n", "F 0\n"} {
		if line, _ := r.ReadString('\n'); line != want {
			t.Errorf("got %q, want %q", line, want)
		}
	}
	close(stop)
	h.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
