package test

import (
	"crypto/tls"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/internal/testenv"
)

// way is one way to the same server: smtpd with the milter mimedefang and the multiplexor of Debian, or smtp-proxy and
// our multiplexor, with the same mimedefang.pl and filter.
type way struct {
	name, address string
	proxied       bool
	dir           string // what the filter notes and sends elsewhere
	tls           *tls.Config
	plain         string // AUTH PLAIN's response
	fates         map[string]*fate
}

// fate is what became of a message.
type fate struct {
	proxied bool
	replies []string // of the commands from the last EHLO on
	notes   string   // what the filter was asked and shown, and sent elsewhere
	qid     string
	from    string
	to      []string
	content string
}

// offer offers a message, and notes the replies.
func (w *way) offer(t testing.TB, o mailing) *fate {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(w.dir, "notes")); err != nil {
		t.Fatal(err)
	}
	got := &fate{proxied: w.proxied}
	w.talk(t, o, got)
	notes, err := os.ReadFile(filepath.Join(w.dir, "notes"))
	if err != nil {
		t.Errorf("%s, %s: %v", o.name, w.name, err)
	}
	got.notes = string(notes)
	return got
}

func (w *way) talk(t testing.TB, o mailing, got *fate) {
	t.Helper()
	conn := testenv.Dial(t, "tcp4", w.address)
	defer func() { conn.Close() }()
	testenv.Patient(conn)
	c := textproto.NewConn(conn)
	say := func(line string) bool {
		if line != "" {
			if err := c.PrintfLine("%s", line); err != nil {
				t.Fatal(err)
			}
		}
		code, text, err := c.ReadResponse(0)
		if code == 0 {
			t.Errorf("%s, %s: reply to %.60q: %v", o.name, w.name, line, err)
		}
		word, _, _ := strings.Cut(line, " ")
		got.replies = append(got.replies, fmt.Sprintf("%s: %d %s", word, code, strings.ReplaceAll(text, "\n", "|")))
		return code > 0 && code < 400
	}
	say("")
	if o.client != "" {
		say("EHLO proxy.example")
		if err := os.Remove(filepath.Join(w.dir, "notes")); err != nil { // it is about another client
			t.Fatal(err)
		}
		if !say("XCLIENT " + o.client) {
			return
		}
	}
	if o.tls {
		say("EHLO client.example")
		if !say("STARTTLS") {
			return
		}
		config := w.tls.Clone()
		if !o.cert {
			config.Certificates = nil
		}
		conn = tls.Client(conn, config)
		c = textproto.NewConn(conn)
	}
	got.replies = nil
	ok := say("EHLO " + o.helo)
	got.replies[0] = got.replies[0][:len("EHLO: 250")] // the rest is what the server can do
	if o.login && ok {
		ok = say("AUTH PLAIN " + w.plain)
	}
	if ok && say("MAIL FROM:"+o.from) {
		taken := false
		for _, rcpt := range o.rcpts {
			taken = say("RCPT TO:"+rcpt) || taken
		}
		if taken && say("DATA") {
			_, err := c.W.WriteString(stuffed(o.data))
			if err != nil {
				t.Fatal(err)
			}
			say(".")
		}
	}
	got.qid = queuedAs.FindString(got.replies[len(got.replies)-1])
	say("QUIT")
	got.replies = got.replies[:len(got.replies)-1]
}

var queuedAs = regexp.MustCompile(`[0-9A-Za-z]{8,}$`)

// milterWay starts the milter and the multiplexor of Debian in front of Postfix.
func milterWay(t *testing.T, milterAt string) *way {
	worker := testenv.Path(t, whatMilter, "mimedefang.pl")
	w := &way{name: "the milter"}
	mx := startMultiplexor(t, testenv.Path(t, whatMilter, theirMultiplexor), worker, "-F", w.filter(t), "-x", "2", "-m", "1", "-l", "-q", "10")
	account, _ := testenv.DaemonAccount()
	host, port, _ := strings.Cut(milterAt, ":")
	m := testenv.Start(t, exec.Command(testenv.Path(t, whatMilter, "mimedefang"), "-D", "-U", account, "-p", "inet:"+port+"@"+host, "-m", mx.path("s"),
		"-z", mx.dir, "-r", "-H", "-s", "-t", "-q", "-x", "a test"))
	testenv.Eventually(t, "the milter", func() bool {
		if !m.Running() {
			t.Fatal("the milter has ended")
		}
		conn, err := testenv.Connect("tcp4", milterAt)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return w
}

const whatMilter = "the mimedefang milter and smtp-proxy, side by side"

// filter writes the filter for the workers of a way.
func (w *way) filter(t *testing.T) string {
	t.Helper()
	w.dir = testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "filter"))
	text, err := os.ReadFile("testdata/every-action.pl")
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("our ($Notes, $Dir) = ('%s/notes', '%s');\n", w.dir, w.dir)
	sendmail := fmt.Sprintf("#!/bin/sh\n{ echo \"sendmail $*\"; cat; } >>%s/notes\n", w.dir)
	file := filepath.Join(w.dir, "filter.pl")
	for name, text := range map[string]string{file: head + string(text), filepath.Join(w.dir, "sendmail"): sendmail} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"quarantine", "web"} {
		testenv.DaemonDir(t, filepath.Join(w.dir, name))
	}
	return file
}

// actionNames are the names of what the filter does.
func actionNames(t *testing.T) (names []string) {
	text, err := os.ReadFile("testdata/every-action.pl")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t'([a-z-]+)' => \{`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	return names
}

// sameMain are the settings of the Postfix that has the milter, and is the next hop of smtp-proxy. Messages are told
// from each other by their queue ids, and short ones come again when a file has the inode of an earlier one.
const sameMain = `myhostname = mx.example.net
enable_long_queue_ids = yes
virtual_mailbox_domains =
default_transport = smtp
relayhost = [127.0.0.1]:%d
inet_protocols = all
mynetworks = 0.0.0.0/0, [::]/0
smtpd_authorized_xclient_hosts = 127.0.0.0/8
local_header_rewrite_clients =
allow_percent_hack = no
smtp_destination_recipient_limit = 5000
smtpd_recipient_restrictions = check_recipient_access inline:{refused@there.test=REJECT}
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = %s
smtpd_tls_key_file = %s
smtpd_tls_ask_ccert = yes
smtpd_tls_CAfile = %s
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %s
smtpd_milters = inet:%s
milter_default_action = tempfail
`

// sameMaster has a port without the milter.
const sameMaster = `127.0.0.1:%d inet n - n - - smtpd
 -o smtpd_milters=
tlsmgr unix - - n 1000? 1 tlsmgr
`

// startWays starts all programs of both ways, and what is behind.
func startWays(t *testing.T) (ways [2]*way, server *testenv.Mailserver, next *testenv.Backend) {
	t.Helper()
	milterAt := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	ways = [2]*way{milterWay(t, milterAt), {name: "smtp-proxy", proxied: true}}
	next = testenv.StartBackend(t)
	sasl := testenv.StartDovecot(t)
	dir := testenv.ShortDir(t)
	authority := testenv.NewAuthority(t)
	cert, key := testenv.Certificate(t, dir)
	behind := testenv.FreePort(t)
	server = testenv.StartPostfix(t, fmt.Sprintf(sameMain, next.Port, cert, key, authority.File(dir), sasl.Auth, milterAt), fmt.Sprintf(sameMaster, behind))
	ways[0].address = server.Address()

	mx := startMultiplexor(t, ourMultiplexor(t), testenv.Path(t, whatMilter, "mimedefang.pl"), "-F", ways[1].filter(t), "-x", "2", "-m", "1", "-l", "--scan-below-spool")
	held := testenv.DaemonDir(t, filepath.Join(testenv.ShortDir(t), "held"))
	door := startFrontDoor(t, fmt.Sprintf("smtp://127.0.0.1:%d", behind), "--hostname", "mx.example.net", "--multiplexor", mx.path("s"), "--spool", mx.dir,
		"--relayok", "--helook", "--senderok", "--recipok", "--xclient-from", "127.0.0.0/8", "--xclient-login", "--client-lookup=no", "--scanned-by", "a test",
		"--tls-client-ca", authority.File(dir), "--tls-client-cert", "ask", "--hold", "maildir:"+held).await()
	ways[1].address = door.address()

	client := authority.Issue("client.example", time.Hour)
	for _, w := range ways {
		w.plain = b64("\x00" + testenv.POP3User + "\x00" + testenv.POP3Password)
		w.tls = &tls.Config{ // one cipher, as servers choose differently
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
			Certificates: []tls.Certificate{client},
		}
		w.fates = make(map[string]*fate)
	}
	return ways, server, next
}

// TestSameAsTheMilter has a corpus of messages go twice to the same Postfix: through the milter mimedefang and the
// multiplexor of Debian, and through smtp-proxy and ours. Replies, what the filter is asked and shown, envelopes and
// content are the same, but for what differs by intent, which smtp-proxy(8) says.
func TestSameAsTheMilter(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	ways, server, next := startWays(t)
	messages := corpus(actionNames(t))
	var tasks []*testenv.Task
	for _, w := range ways {
		tasks = append(tasks, testenv.Play(t, "the corpus through "+w.name, func(t testing.TB) {
			for _, o := range messages {
				w.fates[o.name] = w.offer(t, o)
			}
		}))
	}
	for _, task := range tasks {
		task.Wait()
	}
	testenv.Eventually(t, "Postfix to deliver all", func() bool {
		left, err := filepath.Glob(filepath.Join(server.Dir, "queue", "[aim][cna]*", "*")) // active, incoming, maildrop
		if err != nil {
			t.Fatal(err)
		}
		return len(left) == 0
	})
	collect(t, ways, next)
	next.Forgive() // malformed messages are as they came

	used, delivered := map[int]bool{}, 0
	for _, o := range messages {
		want, got := ways[0].fates[o.name], ways[1].fates[o.name]
		sameText(t, o.name+", by smtp-proxy and by the milter", got.text(o.name, used), want.text(o.name, used))
		if want.content != "" {
			delivered++
		}
	}
	if len(messages) < 250 || delivered < 200 {
		t.Errorf("%d of %d messages were delivered", delivered, len(messages))
	}
	for i, d := range differences {
		if !used[i] {
			t.Errorf("nothing differs any more in %q: %v, %v", d.item, d.cases, d.what)
		}
	}
}

// idOfPostfix finds the queue id in the field of Postfix.
var idOfPostfix = regexp.MustCompile(`by mx\.example\.net \(Postfix\) with \S+ id ([0-9A-Za-z]+)`)

// collect finds what became of the messages by their queue ids.
func collect(t *testing.T, ways [2]*way, next *testenv.Backend) {
	byID := make(map[string]*fate)
	for _, w := range ways {
		for _, o := range w.fates {
			byID[o.qid] = o
		}
	}
	for _, m := range next.Messages() {
		id := idOfPostfix.FindStringSubmatch(m.Data)
		if id == nil || byID[id[1]] == nil {
			t.Errorf("nobody knows the message\n%.1000s", m.Data)
			continue
		}
		o := byID[id[1]]
		o.from, o.content = m.From, sameField(m.Data, o.proxied)
		o.to = append(o.to, m.To...)
		slices.Sort(o.to)
	}
}
