package metrics

import (
	"strings"
	"testing"
	"time"
)

// What every daemon says of itself, and what a load balancer is told.
func TestProcess(t *testing.T) {
	r := New("smtp_proxy")
	state, reloads, expires := "starting", Reloads{}, time.Time{}
	r.Process(Process{
		State: func() string { return state }, LogDropped: func() uint64 { return 4 },
		Reloads: func() Reloads { return reloads }, Expires: func() time.Time { return expires },
	})
	get, _ := serve(t, r)
	for _, step := range []struct {
		state  string
		status int
	}{{"starting", 503}, {Ready, 200}, {"draining", 503}} {
		state = step.state
		if status, body := get("GET", HealthPath); status != step.status || body != step.state+"\n" {
			t.Errorf("%s: status %d, %q", step.state, status, body)
		}
	}
	_, body := get("GET", Path)
	if strings.Contains(body, "certificate_expiry_seconds 0") {
		t.Error("a certificate that is not there ends")
	}
	reloads, expires = Reloads{Done: 2, Failed: 1, LastFailed: true}, time.Unix(1795327900, 0)
	_, body = get("GET", Path)
	for _, want := range []string{
		"postern_smtp_proxy_log_lines_dropped_total 4\n", `postern_smtp_proxy_reloads_total{outcome="done"} 2` + "\n",
		`postern_smtp_proxy_reloads_total{outcome="failed"} 1` + "\n", "postern_smtp_proxy_reload_failed 1\n",
		"postern_smtp_proxy_certificate_expiry_seconds 1.7953279e+09\n", `postern_build_info{goversion="go`, `program="smtp-proxy"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if status, _ := get("POST", HealthPath); status != 405 {
		t.Errorf("POST: status %d", status)
	}
	if status, body := func() (int, string) { get, _ := serve(t, New("x")); return get("GET", HealthPath) }(); status != 200 || body != "ready\n" {
		t.Errorf("of a program that says nothing: status %d, %q", status, body)
	}
}
