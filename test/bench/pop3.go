package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	pop3Users    = 50
	pop3Password = "x"
	pop3Message  = 1 << 20 // bytes of the only message of each user
)

// pop3Kinds are the proxies for POP3.
var pop3Kinds = []proxyKind{
	{name: "haproxy", needs: []string{"haproxy"}, start: (*bench).haproxy},
	{name: "nginx", needs: []string{"nginx", nginxMail}, start: func(_ *bench, in, out int, dir string) ([]string, error) { return nginxFor("pop3", in, out, dir) }},
	{name: "perdition", needs: []string{"perdition.pop3"}, start: (*bench).perdition},
	{name: "copy", start: (*bench).copier},
	{name: "ours", start: (*bench).pop3Stamp},
}

func (b *bench) perdition(in, out int, dir string) ([]string, error) {
	return []string{"perdition.pop3", "--no_daemon", "-f", "/dev/null", "--pid_file", "", "-P", "POP3", "-b", "127.0.0.1", "-l", strconv.Itoa(in),
		"-n", "-s", "127.0.0.1", "-p", strconv.Itoa(out), "-u", account, "-g", "nogroup", "--ssl_mode", "none"}, nil
}

// pop3Stamp is started without the limits that stand in the way of a single client that is many. It writes stamps, to a
// tmpfs as in their usual place.
func (b *bench) pop3Stamp(in, out int, dir string) ([]string, error) {
	stamps := filepath.Join(inMemory(b.dir), "stamps")
	if err := os.MkdirAll(stamps, 0o755); err != nil {
		return nil, err
	}
	if err := giveTo(account, stamps); err != nil {
		return nil, err
	}
	return []string{b.ours("pop3-stamp"), "--pop3", "tcp:" + address(in), "--upstream", "pop3://" + address(out), "--clientip-dir", stamps,
		"--metrics", filepath.Join(dir, "metrics"), "--max-sessions", "0", "--max-sessions-per-address", "0", "--login-timeout", "1h",
		"--idle-timeout", "1h", "--log-level", "warn"}, nil
}

// pop3 measures what POP3 proxies cost in front of one Dovecot, and what idle sessions take.
func (b *bench) pop3() error {
	if err := b.pop3Dovecot(); err != nil {
		return err
	}
	return b.pop3Idle()
}

func (b *bench) pop3Dovecot() error {
	if missing("dovecot") || missing("/usr/lib/dovecot/pop3") {
		return nil
	}
	if !asRoot() {
		fmt.Println("(not root: there is no Dovecot to measure with)")
		return nil
	}
	dovecot, err := b.startDovecot()
	if err != nil {
		return err
	}
	rows := []*proxy{{name: "direct", port: dovecot}}
	for _, kind := range pop3Kinds {
		row, err := b.startOneOf(pop3Kinds, kind.name, dovecot)
		if err != nil {
			return err
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	fmt.Printf("\nPOP3 through a proxy, medians of %d runs in turns. Ratios are ours to the row, of runs of the same turn.\n", b.rounds)
	fmt.Printf("CPU is that of all processes of the proxy, in seconds for 1000 sessions.\n\n")
	fmt.Printf("%-26s %-10s %10s %6s %10s\n", "what", "row", "a second", "ratio", "CPU s/1000")
	for _, clients := range pick(b.quick, []int{20}, []int{1, 20, 100}) {
		sessions := pick(b.quick, 400, pick(clients == 1, 300, 1500))
		if err := b.pop3Point(fmt.Sprintf("%d clients, login", clients), rows, pop3Load{clients: clients, sessions: sessions}); err != nil {
			return err
		}
	}
	for _, clients := range []int{1, 20} {
		l := pop3Load{clients: clients, sessions: clients * pick(clients == 1, 10, 1), retr: pick(b.quick, 5, 20)}
		if err := b.pop3Point(fmt.Sprintf("%d clients, 1 MiB a time", clients), rows, l); err != nil {
			return err
		}
	}
	return nil
}

// pop3Point measures one load at all rows and compares the last with the others.
func (b *bench) pop3Point(what string, rows []*proxy, l pop3Load) error {
	rates, cpu := make([][]float64, len(rows)), make([][]float64, len(rows))
	if err := inTurns(b.rounds, len(rows), func(_, i int) error {
		used := treeCPU(rows[i].pid)
		rate, err := l.run(rows[i].port)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", rows[i].name, what, err)
		}
		rates[i] = append(rates[i], rate)
		cpu[i] = append(cpu[i], (treeCPU(rows[i].pid)-used).Seconds()*1000/float64(l.sessions))
		return nil
	}); err != nil {
		return err
	}
	for i, row := range rows {
		ratio := medianRatio(rates[len(rows)-1], rates[i])
		fmt.Printf("%-26s %-10s %10.0f %6.2f %10s\n", what, row.name, median(rates[i]), ratio,
			pick(row.pid == 0, "", fmt.Sprintf("%.2f", median(cpu[i]))))
		switch {
		case row.name == "haproxy":
			b.goals.add(ratio >= 0.95, what+", to HAProxy", "at least 0.95", "%.2f", ratio)
		case l.retr == 0 && (row.name == "nginx" || row.name == "perdition"):
			b.goals.add(ratio >= 1, what+", to "+row.name, "at least 1", "%.2f", ratio)
		}
	}
	return nil
}

const dovecotSettings = `base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = maildir:%[1]s/mail/%%u
first_valid_uid = 1
mail_max_userip_connections = 10000
auth_failure_delay = 0
passdb {
  driver = static
  args = password=%[2]s
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%[1]s/mail/%%u
}
service pop3-login {
  inet_listener pop3 {
    port = %[3]d
  }
  inet_listener pop3s {
    port = 0
  }
  service_count = 0
  process_min_avail = 2
  client_limit = 5000
}
service pop3 {
  service_count = 0
  client_limit = 1
  process_limit = 1000
  process_min_avail = 8
}
service auth {
  client_limit = 20000
}
service anvil {
  client_limit = 20000
}
service stats {
  client_limit = 20000
}
`

// startDovecot starts a Dovecot with a message for each of its users, and gives its port.
func (b *bench) startDovecot() (port int, err error) {
	if port, err = freePort(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(b.dir, "dovecot")
	if err != nil {
		return 0, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	message := []byte("Subject: bench\n\n" + strings.Repeat(strings.Repeat("x", 76)+"\n", pop3Message/78)) // Dovecot adds a CR to each line
	for u := range pop3Users {
		for _, part := range []string{"", "cur", "new", "tmp"} {
			path := filepath.Join(dir, "mail", pop3User(u), part)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return 0, err
			}
			if err := giveTo(account, path); err != nil {
				return 0, err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "mail", pop3User(u), "cur", "1700000001.m1.x:2,S"), message, 0o644); err != nil {
			return 0, err
		}
	}
	settings := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(settings, fmt.Appendf(nil, dovecotSettings, dir, pop3Password, port), 0o644); err != nil {
		return 0, err
	}
	log := filepath.Join(dir, "output")
	pid, err := b.children.start(log, "dovecot", "-F", "-c", settings)
	if err != nil {
		return 0, err
	}
	return port, awaitChild("dovecot", pid, log, func() bool { return takes(port) })
}

func pop3User(n int) string { return fmt.Sprintf("u%d", n%pop3Users) }

// pop3Idle measures what sessions take whose clients have logged in and say nothing, before a server of our own, as
// Dovecot has a process for each.
func (b *bench) pop3Idle() error {
	server, err := startMailbox()
	if err != nil {
		return err
	}
	defer server.close()
	n := min(10000, descriptorLimit()/2-200) // two for each session, in the proxy and here
	fmt.Printf("\nIdle POP3 sessions after the login: memory of the proxy for each, with its two connections\n\n%-10s %8s %10s %10s %9s\n",
		"row", "sessions", "RSS KiB", "PSS KiB", "MiB in all")
	for _, name := range []string{"haproxy", "nginx", "ours"} {
		p, err := b.startOneOf(pop3Kinds, name, server.port)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		if err := b.pop3IdleAt(p, n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.children.end(p.pid)
	}
	return nil
}

func (b *bench) pop3IdleAt(p *proxy, n int) error {
	if _, err := (pop3Load{clients: 1, sessions: 1}).run(p.port); err != nil {
		return err
	}
	time.Sleep(time.Second)
	before := snapshot(p)
	sessions, err := logInMany(p.port, n)
	defer func() {
		for _, c := range sessions {
			c.conn.Close()
		}
	}()
	if err != nil {
		return err
	}
	time.Sleep(pick(b.quick, 6*time.Second, 12*time.Second)) // memory settles
	held := snapshot(p)
	each := func(after, before int) float64 { return float64(after-before) / 1024 / float64(n) }
	rss := each(held.rss, before.rss)
	fmt.Printf("%-10s %8d %10.2f %10.2f %9.1f\n", p.name, n, rss, each(held.pss, before.pss), mib(held.rss))
	if p.name != "ours" {
		return nil
	}
	b.goals.add(rss <= idleEach, fmt.Sprintf("resident memory of an idle POP3 session, %d of them", n), fmt.Sprintf("at most %d KiB", idleEach), "%.2f KiB", rss)
	for _, c := range sessions {
		if err := c.ask("STAT"); err != nil {
			return fmt.Errorf("an idle session: %w", err)
		}
	}
	return nil
}
