package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postern/internal/smtp"
	"postern/internal/testenv"
	"postern/smtp-proxy/header"
)

// The tests of this file are the cases about what a filter worker returns, as far as they are the proxy's. All of
// it derives from mail, and is hostile.

// filteredWith sends a message through a filter that leaves that RESULTS file, and gives the reply and what
// arrived.
func filteredWith(t *testing.T, results string) (string, []testenv.Received) {
	t.Helper()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, results))
	return deliverThrough(t, b, m, filterMessage), b.Messages()
}

func TestWRK_01_NewHeaderInAValue(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"a%0D%0ABcc:%20v@x", "a%0ABcc:%20v@x", "a%0DBcc:%20v@x", "a%0A%0ABcc:%20v@x", "a%0A%20%0D%0ABcc:%20v@x", "a%00Bcc:%20v@x"} {
		r, got := filteredWith(t, "HX-A "+value+"\nF\n")
		if !strings.HasPrefix(r, "250") || len(got) != 1 {
			if !strings.HasPrefix(r, "451") || len(got) != 0 {
				t.Errorf("%s: reply %q, %d messages", value, r, len(got))
			}
			continue
		}
		h, _, _ := header.Split([]byte(got[0].Data))
		if h.Count("Bcc") != 0 || h.Count("X-A") != 1 || strings.Count(got[0].Data, "\r\n\r\n") != 1 {
			t.Errorf("%s: arrived as %q", value, got[0].Data)
		}
	}
}

func TestWRK_02_HostileFieldNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-A%0D%0AB", "X%20A", "X:A", "", strings.Repeat("x", 1000), "X-%E4"} {
		r, got := filteredWith(t, "H"+name+" evil\nF\n")
		if strings.HasPrefix(r, "451") && len(got) == 0 {
			continue
		}
		if !strings.HasPrefix(r, "250") || len(got) != 1 || strings.Contains(got[0].Data, "evil") {
			t.Errorf("%.20q: reply %q, arrived %+v", name, r, got)
		}
	}
}

func TestWRK_03_HostileReplyTexts(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	for _, text := range []string{"no%0D%0A250%20ok", strings.Repeat("long%20text%20", 400), "a%1Bb", "%C3%BC%FF"} {
		m := startMultiplexor(t, scanWith(t, "B554 5.7.1 "+text+"\nF\n"))
		p := startProxy(t, m.args(behind(b))...)
		c := greeted(t, p.addr)
		c.envelope()
		c.cmd("DATA", "354")
		c.send(smallMessage)
		for {
			line, err := c.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "554") || len(line) > smtp.MaxReplyLine || strings.ContainsAny(line[:len(line)-2], "\r\n\x1b") || strings.Contains(line, "\xff") {
				t.Fatalf("reply line %q, %v", line, err)
			}
			if line[3] == ' ' {
				break
			}
		}
		c.cmd("NOOP", "250 2.0.0 Ok") // one reply
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestWRK_04_CodesThatDoNotFit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{"B250 2.0.0 x", "554 5.7.1 x"}, {"B999 5.7.1 x", "554 5.7.1 x"}, {"Babc 5.7.1 x", "554 5.7.1 x"}, {"B4 5.7.1 x", "554 5.7.1 x"},
		{"B550 2.0.0 x", "550 5.7.1 x"}, {"T550 4.7.0 x", "451 4.7.0 x"}, {"T250 2.0.0 x", "451 4.3.0 x"},
	} {
		if r, got := filteredWith(t, tt.line+"\nF\n"); r != tt.want || len(got) != 0 {
			t.Errorf("%s: reply %q, want %q; %d messages", tt.line, r, tt.want, len(got))
		}
	}
	for answer, want := range map[string]string{"ok 0 x 250 2.0.0 0": "554 5.7.1 x", "ok -1 x 550 5.0.0 0": "451 4.7.1 x", "ok 0 x abc 5.7.1 0": "554 5.7.1 x"} {
		b := testenv.StartBackend(t)
		m := startMultiplexor(t, func(words []string) string {
			if words[0] == "senderok" {
				return answer + "\n"
			}
			return "ok 1\n"
		})
		p := startProxy(t, m.args(behind(b))...)
		greeted(t, p.addr).cmd("MAIL FROM:<a@b.example>", want)
	}
}

func TestWRK_05_HostileAddresses(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"fa@b%3E%0D%0ARCPT%20TO:%3Cx@y", "Ra@b%3E%0D%0ARCPT%20TO:%3Cx@y", "Ra@b%3E%20NOTIFY=NEVER", "R<a@b", "R>a@b<", "Ra%20b@c", "f%22a@b", "R%C3@b.example", "Ra%00b@c", "R%3C%3Ca@b%3E%3E",
	} {
		r, got := filteredWith(t, line+"\nF\n")
		if !strings.HasPrefix(r, "451 4.3.0") || len(got) != 0 {
			t.Errorf("%s: reply %q, arrived %+v", line, r, got)
		}
	}
}

// TestWorkerChangesTheMessage has a worker write to INPUTMSG and answer that all is well: nobody gets a message that the
// client did not send.
func TestWorkerChangesTheMessage(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"in place":  func(path string) error { return os.WriteFile(path, []byte("Subject: forged\n\nforged\n"), 0o600) },
		"shortened": func(path string) error { return os.Truncate(path, 95) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			answer := scanWith(t, "F\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" {
					if err := change(filepath.Join(words[2], "INPUTMSG")); err != nil {
						t.Error(err)
					}
				}
				return answer(words)
			})
			if r := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(r, "451 4.3.0") || len(b.Messages()) != 0 {
				t.Errorf("reply %q, %d messages", r, len(b.Messages()))
			}
		})
	}
}

func TestWRK_06_MalformedEscapes(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"%", "%4", "%GG"} {
		if r, got := filteredWith(t, "HX-A a"+bad+"\nF\n"); !strings.HasPrefix(r, "451") || len(got) != 0 {
			t.Errorf("escape %s: reply %q, %d messages", bad, r, len(got))
		}
	}
	if _, got := filteredWith(t, "HX-A a%250Ab\nF\n"); len(got) != 1 || !strings.Contains(got[0].Data, "X-A: a%0Ab\r\n") {
		t.Errorf("%%250A arrived as %+v", got)
	}
}

// hostileFiles are things that stand where a file should.
var hostileFiles = map[string]func(t *testing.T, path string){
	"missing":   func(*testing.T, string) {},
	"FIFO":      func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) },
	"symlink":   func(t *testing.T, path string) { must(t, os.Symlink("/etc/passwd", path)) },
	"directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
}

func TestWRK_07_HostileResultFiles(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(*testing.T, string){
		"empty":     func(t *testing.T, path string) { writeFile(t, path, "") },
		"without F": func(t *testing.T, path string) { writeFile(t, path, "HX-A b\n") },
		"1 GiB": func(t *testing.T, path string) {
			writeFile(t, path, "F\n")
			must(t, os.Truncate(path, 1<<30))
		},
	}
	for name, kind := range hostileFiles {
		kinds[name] = kind
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" {
					kind(t, filepath.Join(words[2], "RESULTS"))
					return "ok\n"
				}
				return "ok 1\n"
			})
			if r := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(r, "451") || len(b.Messages()) != 0 {
				t.Errorf("reply %q, %d messages", r, len(b.Messages()))
			}
		})
	}
}

func TestWRK_08_HostileBodyFiles(t *testing.T) {
	t.Parallel()
	for name, kind := range hostileFiles {
		t.Run(name, func(t *testing.T) {
			b := testenv.StartBackend(t)
			answer := scanWith(t, "C\nF\n")
			m := startMultiplexor(t, func(words []string) string {
				if words[0] == "scan" {
					kind(t, filepath.Join(words[2], "NEWBODY"))
				}
				return answer(words)
			})
			if r := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(r, "451") || len(b.Messages()) != 0 {
				t.Errorf("reply %q, %d messages", r, len(b.Messages()))
			}
		})
	}
	b := testenv.StartBackend(t)
	answer := scanWith(t, "C\nF\n")
	long := strings.Repeat("x", 1<<20)
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			writeFile(t, filepath.Join(words[2], "NEWBODY"), "nul\x00nul\nbare\rcr\n.\n"+long+"\nno end")
		}
		return answer(words)
	})
	if r := deliverThrough(t, b, m, filterMessage); !strings.HasPrefix(r, "250") {
		t.Fatalf("reply %q", r)
	}
	if got := b.Messages(); len(got) != 1 || !strings.HasSuffix(got[0].Data, "\r\n\r\nnul nul\r\nbare cr\r\n.\r\n"+long+"\r\nno end\r\n") {
		t.Errorf("arrived as %.300q", got[0].Data)
	}
}

func TestWRK_16_RequestsStayOneLine(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	p := startProxy(t, m.args(behind(b), "--address-check=off")...)
	c := dial(t, p.addr)
	c.expect("220")
	c.cmd("EHLO gr\xc3\xbcn%'", "250")
	c.cmd(`MAIL FROM:<"a \"b'%"@c.example>`, "250")
	c.cmd(`RCPT TO:<"x\\ y"@d.example>`, "250")
	for _, line := range m.requests() {
		for i := range len(line) {
			if line[i] < ' ' || line[i] > '~' || strings.IndexByte(`\'"`, line[i]) >= 0 {
				t.Errorf("request %q", line)
			}
		}
	}
	all := strings.Join(m.requests(), "\n")
	for _, want := range []string{"gr%C3%BCn%25%27", `senderok <%22a%20%5C%22b%27%25%22@c.example>`, "recipok <%22x%5C%5C%20y%22@d.example>"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
}

func TestWRK_20_EnormousHeaders(t *testing.T) {
	t.Parallel()
	b := testenv.StartBackend(t)
	m := startMultiplexor(t, scanWith(t, "F\n"))
	for _, filtered := range []bool{false, true} {
		args := []string{behind(b), "--max-header-size=1M"}
		if filtered {
			args = append(args, m.args()...)
		}
		p := startProxy(t, args...)
		for name, tt := range map[string]struct{ content, want string }{
			"a field of 10 MiB": {"Subject: " + strings.Repeat("x", 10<<20) + "\r\n\r\n", "552 5.3.4"},
			"100000 fields":     {strings.Repeat("X-Field: some value\r\n", 100000) + "\r\n", "552 5.3.4"},
			"NUL":               {"Subject: a\x00b\r\n\r\n", "550"},
		} {
			t.Run(fmt.Sprintf("%s, filtered %v", name, filtered), func(t *testing.T) {
				c := greeted(t, p.addr)
				c.envelope()
				c.cmd("DATA", "354")
				c.send(tt.content + ".\r\n")
				c.expect(tt.want)
			})
		}
	}
	if n := len(b.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}
