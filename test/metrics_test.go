package test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// measured starts every daemon with all that has metrics, and gives the address of those of each.
func measured(t *testing.T) map[string]string {
	t.Helper()
	dir := testenv.ShortDir(t)
	cert, key := testenv.NewAuthority(t).Files(dir, "localhost")
	for _, file := range []string{cert, key} {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spool := testenv.DaemonDir(t, filepath.Join(dir, "spool"))
	held := testenv.DaemonDir(t, filepath.Join(dir, "held"))
	withTLS := []string{"--tls-cert", cert, "--tls-key", key}
	withStore := []string{"--clientip-store", fmt.Sprintf("redis://127.0.0.1:%d/", testenv.FreePort(t))}
	addresses := map[string]string{}
	for program, args := range map[string][]string{
		"smtp-proxy": slices.Concat([]string{"--smtp", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--upstream", "smtp://127.0.0.1:1",
			"--multiplexor", filepath.Join(spool, "s"), "--spool", spool, "--keep-sample", "1%", "--shadow-multiplexor", "inet:1", "--hold", "maildir:" + held}, withTLS, withStore),
		"pop3-stamp":    slices.Concat([]string{"--pop3", fmt.Sprintf("inet:%d", testenv.FreePort(t)), "--upstream", "pop3://127.0.0.1:1"}, withTLS, withStore),
		"postern-board": slices.Concat([]string{"--http", fmt.Sprintf("inet:%d", testenv.FreePort(t))}, withTLS),
		"multiplexor":   {"-D", "--log", "stderr", "--worker", testenv.Binary(t, "filter-basic"), "--spool", spool, "--requests", filepath.Join(spool, "s")},
	} {
		port := testenv.FreePort(t)
		args = append([]string{"--config", os.DevNull, "--user", "nobody", "--metrics", fmt.Sprintf("inet:%d", port)}, args...)
		testenv.Start(t, exec.Command(testenv.Binary(t, program), args...))
		addresses[program] = fmt.Sprintf("localhost:%d", port)
	}
	for program, address := range addresses {
		testenv.Eventually(t, "readiness of "+program, func() bool {
			status, text, err := get("http://" + address + "/health")
			return err == nil && status == http.StatusOK && text == "ready\n"
		})
	}
	testenv.Eventually(t, "a worker", func() bool {
		_, text, err := get("http://" + addresses["multiplexor"] + "/metrics")
		return err == nil && strings.Contains(text, `worker_resident_bytes{worker="0"}`)
	})
	return addresses
}

func get(url string) (status int, text string, err error) {
	r, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

// TestMetricsAreInThePage: postern-metrics(7) has each metric that the daemons export, and no other.
func TestMetricsAreInThePage(t *testing.T) {
	t.Parallel()
	exported, described := map[string]bool{}, map[string]bool{}
	for program, address := range measured(t) {
		_, text, err := get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, `program="`+strings.TrimPrefix(program, "postern-")+`"`) {
			t.Errorf("%s does not say which program it is", program)
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (postern_\w+) `).FindAllStringSubmatch(text, -1) {
			exported[m[1]] = true
		}
	}
	for _, item := range itemLine.FindAllString(readTree(t, "man/postern-metrics.7"), -1) {
		for _, m := range regexp.MustCompile(`\bLi (postern_\w+)`).FindAllStringSubmatch(item, -1) {
			described[m[1]] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		if !described[name] {
			t.Errorf("the page lacks %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(described)) {
		if !exported[name] {
			t.Errorf("the page has %s, which no daemon exports", name)
		}
	}
}

// TestPrometheus has a real one read the metrics of all daemons, and evaluate the alerts and all of the dashboard.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	prometheus := testenv.Path(t, "Prometheus that reads the daemons", "prometheus")
	rules := filepath.Join(testenv.Root(t), "etc/prometheus/postern.rules.yml")
	promtool := testenv.Path(t, "check of the alerts", "promtool")
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", filepath.Join(filepath.Dir(rules), "postern.test.yml")}} {
		if stdout, stderr, status := testenv.Run(t, promtool, args...); status != 0 {
			t.Errorf("promtool %s: %s%s", args[0], stdout, stderr)
		}
	}
	addresses := measured(t)
	targets := strings.Join(slices.Collect(maps.Values(addresses)), ", ")
	dir := testenv.ShortDir(t)
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs:\n- job_name: postern\n  static_configs:\n  - targets: [%s]\n", rules, targets)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	testenv.Start(t, exec.Command(prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address))
	query := func(expr string) (series int, err error) {
		status, text, err := get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(expr))
		var answer struct {
			Data struct{ Result []any }
		}
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d: %s", status, text)
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &answer)
		}
		return len(answer.Data.Result), err
	}
	testenv.Eventually(t, "all daemons in Prometheus", func() bool {
		n, err := query("up == 1")
		built, _ := query("postern_build_info")
		return err == nil && n == len(addresses) && built == len(addresses)
	})
	testenv.Eventually(t, "the alerts, evaluated", func() bool {
		_, text, err := get("http://" + address + "/api/v1/rules")
		return err == nil && strings.Contains(text, `"health":"ok"`) && !strings.Contains(text, `"health":"unknown"`)
	})
	if _, text, err := get("http://" + address + "/api/v1/rules"); err != nil || strings.Contains(text, `"health":"err"`) {
		t.Errorf("alerts: %v\n%s", err, text)
	}
	testenv.Eventually(t, "the alerts of certificates of an hour", func() bool {
		n, err := query(`ALERTS{alertname="PosternCertificateEnds",alertstate="firing"}`)
		return err == nil && n == 3
	})
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readTree(t, "etc/grafana/postern.json")), &dashboard); err != nil || len(dashboard.Panels) == 0 {
		t.Fatalf("the dashboard: %v", err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(target.Expr)
			if _, err := query(expr); err != nil {
				t.Errorf("panel %s: %v", panel.Title, err)
			}
			for _, name := range regexp.MustCompile(`postern_\w+`).FindAllString(expr, -1) {
				base := strings.TrimSuffix(name, "_bucket")
				if !strings.Contains(readTree(t, "man/postern-metrics.7"), base) && name != "postern_" {
					t.Errorf("panel %s: no metric is called %s", panel.Title, name)
				}
			}
		}
	}
}
