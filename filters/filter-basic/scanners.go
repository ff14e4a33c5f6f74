package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"postern/filters/filter-basic/scanner"
	"postern/filters/worker"
	"postern/internal/config"
)

// ScannerSettings are those of programs that are asked about messages.
type ScannerSettings struct {
	Clamd            []string      `help:"Ask clamd at /PATH or HOST:PORT. May be given several times: the first one that answers counts." placeholder:"ADDRESS"`
	Rspamd           []string      `help:"Ask rspamd, likewise." placeholder:"ADDRESS"`
	Spamd            []string      `help:"Ask SpamAssassin's spamd, likewise." placeholder:"ADDRESS"`
	SpamdHeaders     config.Switch `help:"Add SpamAssassin's own header fields." default:"no"`
	ScanCommand      []string      `help:"Run a program, with the message as its input. May be given several times: all are run." placeholder:"COMMAND"`
	ScanTimeout      time.Duration `help:"How long all scanners may take for a message." default:"60s" placeholder:"TIME"`
	ScanMaxSize      config.Bytes  `help:"Larger messages are not given to scanners." default:"25M" placeholder:"SIZE"`
	OnVirus          string        `help:"What to do with a message that has a virus." enum:"reject,discard,tempfail,mark" default:"reject"`
	OnSpam           string        `help:"What to do with a message that is spam." enum:"none,mark,tempfail,reject,discard" default:"mark"`
	OnScannerFailure string        `help:"What to do with a message about which a scanner does not answer." enum:"none,mark,tempfail" default:"tempfail"`
	ScanHeader       string        `help:"Name of the field with the scanners' results; empty adds none." default:"X-Scan-Results" placeholder:"NAME"`

	scanners []scanner.Scanner
}

// validate checks the settings, and makes the scanners.
func (s *ScannerSettings) validate() error {
	s.scanners = nil
	for key, addresses := range map[string][]string{"clamd": s.Clamd, "rspamd": s.Rspamd, "spamd": s.Spamd} {
		for _, a := range addresses {
			if err := scanner.CheckAddress(a); err != nil {
				return &config.Error{Key: key, Value: a, Err: err}
			}
		}
	}
	if len(s.Clamd) > 0 {
		s.scanners = append(s.scanners, scanner.NewClamd(s.Clamd))
	}
	for _, line := range s.ScanCommand {
		c, err := scanner.NewCommand(line)
		if err != nil {
			return &config.Error{Key: "scan-command", Value: line, Err: err}
		}
		s.scanners = append(s.scanners, c)
	}
	if len(s.Rspamd) > 0 {
		s.scanners = append(s.scanners, scanner.NewRspamd(s.Rspamd))
	}
	if len(s.Spamd) > 0 {
		s.scanners = append(s.scanners, scanner.NewSpamd(s.Spamd, bool(s.SpamdHeaders)))
	}
	if s.ScanTimeout < time.Second {
		return &config.Error{Key: "scan-timeout", Err: errors.New("must be at least 1s")}
	}
	return nil
}

// scanned is what scanners have said of a message.
type scanned struct {
	findings []*finding
	results  []string // NAME=RESULT
	changes  changes
}

// askScanners asks one scanner after another, until one has said that the message is not to be delivered.
func (s *Settings) askScanners(ctx context.Context, m *scanner.Message, all *scanned) {
	if len(s.scanners) == 0 {
		return
	}
	if s.ScanMaxSize > 0 && len(m.Content) > int(s.ScanMaxSize) {
		all.results = []string{"scan=skipped (too large)"}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.ScanTimeout)
	defer cancel()
	for _, one := range s.scanners {
		r, err := one.Scan(ctx, m)
		if err != nil {
			s.logf("%s: %s: %v", m.QueueID, one.Name(), err)
			all.results = append(all.results, one.Name()+"=failed")
			all.findings = append(all.findings, &finding{unscanned, "message could not be scanned, please try again later"})
		} else {
			all.results = append(all.results, one.Name()+"="+r.String())
			all.add(r)
		}
		if s.ends(all.findings) {
			break
		}
	}
	s.logf("%s: %s", m.QueueID, strings.Join(all.results, "; "))
}

// add takes a result.
func (all *scanned) add(r scanner.Result) {
	texts := map[scanner.Verdict]struct {
		kind kind
		text string
	}{
		scanner.Virus:   {virus, "message contains a virus: " + r.Name},
		scanner.Spam:    {spam, "message looks like spam"},
		scanner.Refuse:  {refusedByScanner, "message refused as spam"},
		scanner.Defer:   {deferredByScanner, "try again later"},
		scanner.Discard: {discardedByScanner, "message refused as spam"},
	}
	if t, bad := texts[r.Verdict]; bad {
		if r.Reply != "" {
			t.text = r.Reply
		}
		all.findings = append(all.findings, &finding{t.kind, show(t.text)})
	}
	if r.Subject != "" {
		all.changes.subject = r.Subject
	}
	all.changes.remove = append(all.changes.remove, r.Remove...)
	all.changes.add = append(all.changes.add, r.Add...)
}

// ends reports whether a message with these findings is not delivered.
func (s *Settings) ends(findings []*finding) bool {
	for _, f := range findings {
		if !delivers(s.policy(f.kind)) {
			return true
		}
	}
	return false
}

// forScanners is what scanners are told of a message.
func forScanners(m *worker.Message, content []byte) *scanner.Message {
	out := &scanner.Message{Content: content, QueueID: m.QueueID, ClientIP: m.ClientIP, ClientName: m.ClientName, Helo: m.Helo,
		Sender: address(m.Sender), User: m.Macros["auth_authen"]}
	for _, r := range m.Recipients {
		out.Recipients = append(out.Recipients, address(r.Address))
	}
	return out
}

// address is an address without its angle brackets.
func address(a string) string { return strings.TrimSuffix(strings.TrimPrefix(a, "<"), ">") }

// logf writes a line to the log.
func (s *Settings) logf(format string, args ...any) {
	w := s.log
	if w == nil {
		w = os.Stderr
	}
	// The log is the last resort; there is nowhere to tell that it failed.
	_, _ = fmt.Fprintln(w, strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...)))
}
