package digest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/internal/logging"
)

// aMorning is a log as journalctl prints it.
const aMorning = `Jan  2 03:00:01 mx smtp-proxy[7]: ready
Jan  2 03:00:02 mx smtp-proxy[7]: message session=a client=192.0.2.1 helo=x qid=Q1 from=ann@example.org outcome=accepted recipients=2 size=1000 duration=250ms to=bob@example.org reply="250 2.0.0 Ok" server=smtp://mail:25
Jan  2 03:00:03 mx smtp-proxy[7]: message session=b client=192.0.2.2 qid=Q2 from=eve@example.com outcome=refused recipients=1 size=50 duration=3s to=bob@example.org reply="554 5.7.1 <Q2>: Spam" server=smtp://mail:25
Jan  2 03:00:04 mx smtp-proxy[7]: message session=c client=192.0.2.2 qid=Q3 from=eve@example.com outcome=refused recipients=1 size=50 duration=1s to=bob@example.org reply="554 5.7.1 <Q3>: Spam" server=smtp://mail:25
Jan  2 03:00:05 mx smtp-proxy[7]: message session=c client=192.0.2.2 qid=Q4 outcome=deferred recipients=1 size=50 duration=1m0s reply="451 4.3.0 Try again later (c)" gate=filter
Jan  2 03:00:06 mx smtp-proxy[7]: message session=d client=192.0.2.3 qid=Q5 from=sue@example.org outcome=held recipients=1 size=9 duration=1ms to=bob@example.org reply="250 2.0.0 Ok" reason="macros \x1b[31m" server=smtp://mail:25
Jan  2 03:00:07 mx smtp-proxy[7]: message session=e client=192.0.2.3 outcome="client left" recipients=1 size=9 duration=1ms
Jan  2 03:00:08 mx smtp-proxy[7]: refused session=f client=192.0.2.4 to=nobody@example.org reply="550 5.1.1 <nobody@example.org>: unknown" server=smtp://mail:25
Jan  2 03:00:09 mx smtp-proxy[7]: next hop failed session=g client=192.0.2.5 act=connect error="dial tcp 127.0.0.1:25: connection refused"
Jan  2 03:00:10 mx smtp-proxy[7]: next hop failed session=h client=192.0.2.5 act=reply error="read tcp 127.0.0.1:4711->127.0.0.1:25: connection reset" server=smtp://mail:25
Jan  2 03:00:11 mx smtp-proxy[7]: next hop failed session=i client=192.0.2.5 act=reply error="read tcp 127.0.0.1:4712->127.0.0.1:25: connection reset" server=smtp://mail:25
Jan  2 03:00:12 mx smtp-proxy[7]: turned away listener=smtp client=[2001:db8::1]:4711 gate=sessions
Jan  2 03:00:13 mx smtp-proxy[7]: session session=k listener=smtp client=192.0.2.6:99 helo=x messages=0 errors=0 duration=1ms gate=stamp
Jan  2 03:00:14 mx smtp-proxy[7]: session session=l listener=smtp client=192.0.2.6:98 helo=x messages=0 errors=0 duration=1ms gate=stamp
Jan  2 03:00:15 mx smtp-proxy[7]: session session=m listener=smtp client=192.0.2.7:98 helo=x messages=1 errors=0 duration=1ms
Jan  2 03:00:16 mx smtp-proxy[7]: login failed session=n listener=smtp client=192.0.2.8 mechanism=PLAIN user=root reply="535 no"
Jan  2 03:00:17 mx smtp-proxy[7]: lines were suppressed line=refused gate=limits count=12
Jan  2 03:00:18 mx sshd[8]: Accepted password client=1 from=2
`

func read(rows int, text string) *Digest {
	d := New(rows)
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)
	for line := range strings.Lines(text) {
		d.Add(logging.ParseLine(strings.TrimSuffix(line, "\n"), now))
	}
	return d
}

func TestDigest(t *testing.T) {
	var b strings.Builder
	if err := read(10, aMorning).Print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `16 lines from 2026-01-02 03:00:02 to 2026-01-02 03:00:17
12 more were suppressed, so that what follows counts too few

What came
MESSAGES  RECIPIENTS  BYTES  OUTCOME
1         2           1000   accepted
2         2           100    refused
1         1           50     deferred
1         1           9      held
1         1           9      client left

What was refused, for good or for now, and why
COUNT  BY        REPLY
2      next hop  554 5.7.1 <>: Spam
1      next hop  550 5.1.1 <>: unknown
1      filter    451 4.3.0 Try again later

What was slow
SECONDS  TIME                 QID  OUTCOME      SERVER          BYTES  FROM             TO
60.000   2026-01-02 03:00:05  Q4   deferred     -               50     -                -
3.000    2026-01-02 03:00:03  Q2   refused      smtp://mail:25  50     eve@example.com  bob@example.org
1.000    2026-01-02 03:00:04  Q3   refused      smtp://mail:25  50     eve@example.com  bob@example.org
0.250    2026-01-02 03:00:02  Q1   accepted     smtp://mail:25  1000   ann@example.org  bob@example.org
0.001    2026-01-02 03:00:07  -    client left  -               9      -                -
0.001    2026-01-02 03:00:06  Q5   held         smtp://mail:25  9      sue@example.org  bob@example.org

What the next hops did
ACCEPTED  DEFERRED  REFUSED  SECONDS EACH  SERVER
2         0         2        1.063         smtp://mail:25

Which next hop failed
COUNT  LAST                 SERVER          AT       ERROR
2      2026-01-02 03:00:11  smtp://mail:25  reply    read tcp 127.0.0.1:25: connection reset
1      2026-01-02 03:00:09  -               connect  dial tcp 127.0.0.1:25: connection refused

Who was held back
COUNT  LAST                 GATE          CLIENT
2      2026-01-02 03:00:14  stamp         192.0.2.6
1      2026-01-02 03:00:16  login failed  192.0.2.8
1      2026-01-02 03:00:12  sessions      2001:db8::1

Whose mail is held
TIME                 QID  CLIENT     FROM             TO               REASON
2026-01-02 03:00:06  Q5   192.0.2.3  sue@example.org  bob@example.org  macros \x1b[31m
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestRows(t *testing.T) {
	d := read(1, aMorning)
	rows, others := d.Refusals.top(1)
	if len(d.Slow) != 1 || d.Slow[0].QID != "Q4" || len(rows) != 1 || others != 2 {
		t.Errorf("%v, %v and %d", d.Slow, rows, others)
	}
	if d := read(0, aMorning); len(d.Slow)+len(d.Held) != 0 {
		t.Errorf("%v, %v", d.Slow, d.Held)
	}
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(read(10, aMorning))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"lines":16,"suppressed":12,`, `{"outcome":"accepted","messages":1,"recipients":2,"bytes":1000}`,
		`{"kind":{"client":"192.0.2.6","gate":"stamp"},"count":2,"last":"2026-01-02T03:00:14`, `"reason":"macros \u001b[31m"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if text, err := json.Marshal(New(10)); err != nil || strings.Contains(string(text), "null") {
		t.Errorf("of nothing: %s, %v", text, err)
	}
}

// Numbers that are none of a log: what is not believed is nothing, and all else is still said.
func TestLOG_24_NumbersThatAreNone(t *testing.T) {
	for _, text := range []string{"NaN", "Inf", "-Inf", "-1", "1e300", "-5s", "2562047h47m16s", "", "x"} {
		if s := seconds(text); s < 0 || s > longest || s != s {
			t.Errorf("%q is taken for %v", text, s)
		}
		d := New(10)
		for _, l := range strings.Split(aMorning, "\n") {
			d.Add(logging.ParseLine(strings.ReplaceAll(l, "duration=", "duration="+text+" was="), time.Now()))
		}
		for _, at := range []string{"9999999999999.5", "-1e18", "NaN", "99999-01-01T00:00:00Z"} {
			d.Add(logging.ParseLine(`{"time":"`+at+`","msg":"turned away","client":"192.0.2.1:1","gate":"load"}`, time.Now()))
		}
		if _, err := json.Marshal(d); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A log with ever new clients costs no more memory than one with maxKinds.
func TestLOG_23_LogOfManyClients(t *testing.T) {
	d := New(10)
	for i := range maxKinds + 100 {
		d.Add(logging.Line{Message: "turned away", Attrs: map[string]string{"client": fmt.Sprintf("192.0.2.1:%d", i), "gate": fmt.Sprint(i)}})
	}
	if _, others := d.Clients.top(10); len(d.Clients.kinds) != maxKinds || others != maxKinds+90 {
		t.Errorf("%d kinds, %d others", len(d.Clients.kinds), others)
	}
}
