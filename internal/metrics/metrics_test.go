package metrics

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/testenv"
)

// serve starts the registry's listener on a UNIX socket and gives a client.
func serve(t *testing.T, r *Registry) (get func(method, path string) (int, string), dial func() net.Conn) {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "m")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := testenv.Go(t, "Serve, whose listener is closed", func() error { return r.Serve(l) })
	dial = func() net.Conn { t.Helper(); return testenv.Dial(t, "unix", path) }
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	client := &http.Client{Transport: transport, Timeout: testenv.Patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		l.Close()
		served.Wait()
	})
	return func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://metrics"+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}, dial
}

func TestFigures(t *testing.T) {
	r := New("smtp_proxy")
	r.Counter("faults_total", "Faults.").Add(3)
	gates := r.Counters("gate_total", "Gates.", "gate", "load", "stamp")
	gates.Inc("load")
	gates.Add("load", 2)
	gates.Inc("a client's text\n")
	g := r.Gauge("sessions", "Sessions.")
	g.Set(5)
	g.Add(-1)
	h := r.Histogram("size_bytes", "Sizes.", 10, 100)
	h.Observe(50)
	hs := r.Histograms("stage_seconds", "Stages.", "stage", []string{"scan"}, 1, 3600)
	hs.Observe("scan", 2)
	hs.Since("scan", time.Now().Add(-time.Minute))
	free := 1.0
	r.Read([]Metric{
		{Name: "workers", Help: "Workers.", Label: "state", Values: []string{"idle", "busy"}},
		{Name: "free", Help: "Free."},
		{Name: "requests_total", Help: "Requests.", Counter: true},
		{Name: "absent", Help: "Not put this time."},
	}, func(put func(name, label string, v float64)) {
		put("workers", "idle", 2)
		put("workers", "busy", 1)
		put("workers", "strange", 1)
		put("workers", "stranger", 1)
		put("free", "", free)
		put("requests_total", "", 7)
		free++
	})
	get, _ := serve(t, r)
	for i := range 2 {
		status, body := get("GET", Path)
		if status != 200 {
			t.Fatalf("status %d: %s", status, body)
		}
		for _, want := range []string{
			"postern_smtp_proxy_faults_total 3\n",
			`postern_smtp_proxy_gate_total{gate="load"} 3` + "\n",
			`postern_smtp_proxy_gate_total{gate="stamp"} 0` + "\n",
			`postern_smtp_proxy_gate_total{gate="other"} 1` + "\n",
			"postern_smtp_proxy_sessions 4\n",
			`postern_smtp_proxy_size_bytes_bucket{le="10"} 0` + "\n",
			`postern_smtp_proxy_size_bytes_bucket{le="100"} 1` + "\n",
			`postern_smtp_proxy_stage_seconds_bucket{stage="scan",le="3600"} 2` + "\n",
			`postern_smtp_proxy_workers{state="idle"} 2` + "\n",
			`postern_smtp_proxy_workers{state="other"} 2` + "\n",
			[]string{"postern_smtp_proxy_free 1\n", "postern_smtp_proxy_free 2\n"}[i],
			"# TYPE postern_smtp_proxy_requests_total counter\n",
			"go_goroutines ", "process_open_fds ",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
		if strings.Contains(body, "client's") || strings.Contains(body, "strange") {
			t.Error("a value from outside became a label")
		}
	}
}

// LOG-04: nothing to change, nothing else to get.
func TestReadOnly(t *testing.T) {
	get, _ := serve(t, New("x"))
	tests := []struct {
		method, path string
		want         int
	}{
		{"HEAD", Path, 200}, {"POST", Path, 405}, {"PUT", Path, 405}, {"DELETE", Path, 405},
		{"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/-/reload", 404},
	}
	for _, tt := range tests {
		if status, _ := get(tt.method, tt.path); status != tt.want {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, status, tt.want)
		}
	}
}

// Connections that do nothing, and ones beyond the limit, keep nobody from asking.
func TestIdleConnections(t *testing.T) {
	_, dial := serve(t, New("x"))
	var idle []net.Conn
	for range maxConnections {
		c := dial()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		// Its answer shows that it has its place.
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	extra := dial()
	if _, err := extra.Read(make([]byte, 1)); !testenv.IsClosed(err) {
		t.Errorf("a connection beyond the limit: %v, want its end", err)
	}
	idle[0].Close()
	// The place is free a moment later.
	testenv.Eventually(t, "a free place", func() bool {
		c := dial()
		defer c.Close()
		io.WriteString(c, "GET "+Path+" HTTP/1.0\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		return strings.HasPrefix(line, "HTTP/1.0 200")
	})
}

// A reader that takes nothing of its answer does not hold up the others.
func TestSlowReader(t *testing.T) {
	get, dial := serve(t, New("x"))
	var slow []net.Conn
	for range maxConnections - 1 {
		c := dial()
		slow = append(slow, c)
		for range 200 { // more answers than the socket's buffers hold
			testenv.Impatient(c)
			if _, err := io.WriteString(c, "GET "+Path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				break
			}
		}
	}
	if status, _ := get("GET", Path); status != 200 {
		t.Errorf("status %d", status)
	}
	// The last one at least is still being waited for.
	testenv.Impatient(slow[len(slow)-1])
	if _, err := slow[len(slow)-1].Write([]byte("x")); testenv.IsClosed(err) {
		t.Errorf("the answer came after the slow readers were given up: %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	r := New("x")
	c := r.Counters("n_total", "N.", "l", "a", "b")
	get, _ := serve(t, r)
	var all sync.WaitGroup
	for _, v := range []string{"a", "b", "c"} {
		all.Go(func() {
			for range 1000 {
				c.Inc(v)
			}
		})
	}
	for range 5 {
		get("GET", Path)
	}
	all.Wait()
	_, body := get("GET", Path)
	for _, v := range []string{"a", "b", Other} {
		if !strings.Contains(body, `postern_x_n_total{l="`+v+`"} 1000`+"\n") {
			t.Errorf("%s is not 1000 in\n%s", v, body)
		}
	}
}

// A wrong name in Read is a mistake in the program; it must be seen at once.
func TestReadUnknownName(t *testing.T) {
	r := New("x")
	r.Read([]Metric{{Name: "a", Help: "A."}}, func(put func(string, string, float64)) {
		defer func() {
			if recover() == nil {
				t.Error("no panic for an unknown name")
			}
		}()
		put("b", "", 1)
	})
	get, _ := serve(t, r)
	if status, _ := get("GET", Path); status != 200 {
		t.Errorf("status %d", status)
	}
}

func BenchmarkCounters(b *testing.B) {
	c := New("x").Counters("n_total", "N.", "l", "a", "b")
	b.ReportAllocs()
	for b.Loop() {
		c.Inc("a")
	}
}
