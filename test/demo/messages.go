package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	sender    = "ann@example.org"
	recipient = "bob@example.net"
)

// sample is a message of the show and what is to become of it.
type sample struct {
	name    string
	text    string
	code    int                         // of the reply to the message
	becomes string                      // the right outcome, in words
	wrong   func(arrived string) string // says what is wrong with what arrived; nil if nothing may arrive
}

func header(subject string, more ...string) string {
	fields := append([]string{"From: Ann <" + sender + ">", "To: Bob <" + recipient + ">", "Subject: " + subject,
		"Date: " + time.Now().Format(time.RFC1123Z), fmt.Sprintf("Message-ID: <%d@example.org>", time.Now().UnixNano())}, more...)
	return strings.Join(fields, "\n") + "\n\n"
}

// signature is the generic test for unsolicited bulk email, in two pieces so
// that no filter takes this file for it.
const signature = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

func samples() []sample {
	return []sample{
		{
			name:    "clean",
			text:    header("lunch") + "Shall we have lunch at noon?\n.\nAnn\n",
			code:    250,
			becomes: "delivered, with the filter's field in its header",
			wrong: func(arrived string) string {
				if !strings.HasSuffix(arrived, "\n\nShall we have lunch at noon?\n.\nAnn\n") {
					return "the text is not the one that was sent"
				}
				if !strings.Contains(arrived, "\nX-Filtered-By: ") {
					return "the filter's field is missing"
				}
				return ""
			},
		},
		{
			name:    "GTUBE",
			text:    header("offer") + "Buy now!\n\n" + signature + "\n",
			code:    554,
			becomes: "refused",
		},
		{
			name: "invoice.pdf.exe",
			text: header("your invoice", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=frontier") +
				"--frontier\nContent-Type: text/plain\n\nPlease find our invoice attached.\n" +
				"--frontier\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n" +
				"Content-Disposition: attachment; filename=\"invoice.pdf.exe\"\n\nTVqQAAMAAAAEAAAA\n--frontier--\n",
			code:    554,
			becomes: "refused",
		},
	}
}

// result is what became of a sample.
type result struct {
	sample
	reply string
	wrong string // empty if all is right
}

// sendAll sends the samples one by one, shows what happens, and gives an error
// unless every one had the right outcome.
func (s *suite) sendAll(ctx context.Context) error {
	var results []result
	for _, m := range samples() {
		s.out.heading("message " + m.name)
		r, err := s.sendOne(ctx, m)
		if err != nil {
			return fmt.Errorf("message %s: %w", m.name, err)
		}
		results = append(results, r)
	}
	return s.summary(results)
}

func (s *suite) sendOne(ctx context.Context, m sample) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, errors.New("interrupted")
	}
	before, err := s.delivered()
	if err != nil {
		return result{}, err
	}
	events := s.events.printed()
	code, reply, err := send(s.address(), s.out, sender, recipient, m.text)
	if err != nil {
		return result{}, err
	}
	s.awaitEvents(events)
	after, err := s.delivered()
	if err != nil {
		return result{}, err
	}
	arrived := slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
	r := result{sample: m, reply: reply}
	r.wrong, err = s.judge(m, code, arrived)
	return r, err
}

// judge compares what happened to a sample with what should have, and shows
// what arrived.
func (s *suite) judge(m sample, code int, arrived []string) (wrong string, err error) {
	want := 0
	if m.wrong != nil {
		want = 1
	}
	if len(arrived) != want {
		return fmt.Sprintf("%d messages arrived, not %d", len(arrived), want), nil
	}
	if code != m.code {
		return fmt.Sprintf("the reply is %d, not %d", code, m.code), nil
	}
	if want == 0 {
		s.out.printf("  nothing arrived in the Maildir")
		return "", nil
	}
	text, err := os.ReadFile(arrived[0])
	if err != nil {
		return "", err
	}
	s.showDifference(m.text, string(text))
	return m.wrong(string(text)), nil
}

// delivered lists the messages in the Maildir.
func (s *suite) delivered() ([]string, error) {
	return filepath.Glob(filepath.Join(s.maildir, "new", "*"))
}

// showDifference prints the lines of the header that were added on the way, and
// says whether the body was changed.
func (s *suite) showDifference(sent, arrived string) {
	sentHeader, sentBody, _ := strings.Cut(sent, "\n\n")
	gotHeader, gotBody, _ := strings.Cut(arrived, "\n\n")
	there := strings.Split(sentHeader, "\n")
	s.out.printf("  arrived in the Maildir, with these lines added to its header:")
	for _, line := range strings.Split(gotHeader, "\n") {
		if !slices.Contains(there, line) {
			s.out.printf("    | %s", line)
		}
	}
	if gotBody != sentBody {
		s.out.printf("  and with another body than the one that was sent")
	}
}

// summary prints one line per message and gives an error unless all is right.
func (s *suite) summary(results []result) error {
	s.out.heading("summary")
	var bad []string
	for _, r := range results {
		verdict := "right: " + r.becomes
		if r.wrong != "" {
			verdict = "WRONG: " + r.wrong
			bad = append(bad, r.name)
		}
		s.out.printf("  %-16s %s\n  %16s %s", r.name, r.reply, "", verdict)
	}
	s.out.printf("")
	if len(bad) > 0 {
		return fmt.Errorf("wrong outcome: %s", strings.Join(bad, ", "))
	}
	s.out.printf("All three messages had the right outcome.")
	return nil
}
