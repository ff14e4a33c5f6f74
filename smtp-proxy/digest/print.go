package digest

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"postern/internal/printable"
	"postern/internal/sockspec"
)

// table is one of the answers.
type table struct {
	title, head string
	rows        []string
}

func (t *table) row(format string, args ...any) {
	for i, a := range args {
		if s, ok := a.(string); ok {
			args[i] = plain(s)
		}
	}
	t.rows = append(t.rows, fmt.Sprintf(format, args...))
}

// plain makes one cell of a text from strangers.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	return printable.Text(s)
}

// Print writes the answers as tables; those without rows are left out.
func (d *Digest) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d lines", d.Lines)
	if !d.First.IsZero() {
		fmt.Fprintf(&b, " from %s to %s", d.First.Local().Format(time.DateTime), d.Last.Local().Format(time.DateTime))
	}
	fmt.Fprintln(&b)
	if d.Suppressed > 0 {
		fmt.Fprintf(&b, "%d more were suppressed, so that what follows counts too few\n", d.Suppressed)
	}
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, t := range d.tables() {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintf(tw, "\n%s\n%s\n%s\n", t.title, t.head, strings.Join(t.rows, "\n"))
		_ = tw.Flush() // into memory
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (d *Digest) tables() []*table {
	return []*table{d.came(), d.refused(), d.slow(), d.servers(), d.faults(), d.clients(), d.held()}
}

func (d *Digest) came() *table {
	t := &table{title: "What came", head: "MESSAGES\tRECIPIENTS\tBYTES\tOUTCOME"}
	for _, o := range d.Outcomes {
		t.row("%d\t%d\t%d\t%s", o.Messages, o.Recipients, o.Bytes, o.Outcome)
	}
	return t
}

func (d *Digest) refused() *table {
	t := &table{title: "What was refused, for good or for now, and why", head: "COUNT\tBY\tREPLY"}
	rows, others := d.Refusals.top(d.rows)
	for _, r := range rows {
		t.row("%d\t%s\t%s", r.Count, r.Kind.By, r.Kind.Reply)
	}
	t.rest(others)
	return t
}

// rest is the row of what is in no other one.
func (t *table) rest(n int) {
	if n > 0 {
		t.row("%d\t%s", n, "others")
	}
}

func (d *Digest) slow() *table {
	t := &table{title: "What was slow", head: "SECONDS\tTIME\tQID\tOUTCOME\tSERVER\tBYTES\tFROM\tTO"}
	for _, m := range d.Slow {
		t.row("%.3f\t%s\t%s\t%s\t%s\t%d\t%s\t%s", m.Seconds, clock(m.Time), m.QID, m.Outcome, m.Server, m.Bytes, m.From, m.To)
	}
	return t
}

func (d *Digest) servers() *table {
	t := &table{title: "What the next hops did", head: "ACCEPTED\tDEFERRED\tREFUSED\tSECONDS EACH\tSERVER"}
	for _, s := range d.Servers {
		t.row("%d\t%d\t%d\t%.3f\t%s", s.Accepted, s.Deferred, s.Refused, s.Seconds/float64(s.Messages), s.Server)
	}
	return t
}

func (d *Digest) faults() *table {
	t := &table{title: "Which next hop failed", head: "COUNT\tLAST\tSERVER\tAT\tERROR"}
	rows, others := d.Faults.top(d.rows)
	for _, r := range rows {
		t.row("%d\t%s\t%s\t%s\t%s", r.Count, clock(r.Last), r.Kind.Server, r.Kind.Act, r.Kind.Error)
	}
	t.rest(others)
	return t
}

func (d *Digest) clients() *table {
	t := &table{title: "Who was held back", head: "COUNT\tLAST\tGATE\tCLIENT"}
	rows, others := d.Clients.top(d.rows)
	for _, r := range rows {
		t.row("%d\t%s\t%s\t%s", r.Count, clock(r.Last), r.Kind.Gate, r.Kind.Client)
	}
	t.rest(others)
	return t
}

func (d *Digest) held() *table {
	t := &table{title: "Whose mail is held", head: "TIME\tQID\tCLIENT\tFROM\tTO\tREASON"}
	for _, m := range d.Held {
		t.row("%s\t%s\t%s\t%s\t%s\t%s", clock(m.Time), m.QID, m.Client, m.From, m.To, m.Reason)
	}
	return t
}

func clock(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Local().Format(time.DateTime)
}

// address leaves the port out.
func address(text string) string {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return sockspec.Plain(a).Addr().String()
	}
	return text
}
