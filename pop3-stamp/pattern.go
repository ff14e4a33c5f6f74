package main

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"postern/internal/stamp"
)

// pattern finds logins in the log of a server. All of a line is looked at, from the name of the program on: what
// clients can put into lines of their own, such as the name of a host or of a user, must not look like a login.
type pattern struct {
	programs []string // names of the program in the log; nil for any
	login    *regexp.Regexp
	connect  *regexp.Regexp    // the client's address, where the same process says that before; nil if login has it
	from     map[string]string // addresses, by host and process that serve them
}

// maxProcesses bounds the processes whose clients are known and have not logged in.
const maxProcesses = 10000

// patterns are those that are known by name.
var patterns = map[string]pattern{
	// pop3-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.7, lip=..., mpid=9, TLS, session=<...>
	"dovecot": {
		programs: []string{"dovecot", "pop3-login", "imap-login"},
		login: regexp.MustCompile(`^(?:(?:pop3|imap)-login: )?(?:Info: )?(?:Login|Logged in): user=<(?P<user>[^<>]*)>, ` +
			`method=[^,<> ]*, rip=(?P<client>[0-9A-Fa-f.:]+), `),
	},
	// LOGIN, user=bob, ip=[::ffff:192.0.2.7], port=[51234]
	"courier": {
		programs: []string{"pop3d", "pop3d-ssl", "imapd", "imapd-ssl", "courier-pop3d", "courier-imapd", "courierpop3login", "imaplogin"},
		login:    regexp.MustCompile(`^(?:INFO: )?LOGIN, user=(?P<user>[^\[\]]*), ip=\[(?P<client>[0-9A-Fa-f.:]+)\](?:, port=\[\d+\])?(?:, protocol=\w+)?(?:, stls=\d)?$`),
	},
	// login: host.example [192.0.2.7] bob plaintext User logged in SESSIONID=<...>
	"cyrus": {
		programs: []string{"cyrus/pop3", "cyrus/pop3s", "cyrus/imap", "cyrus/imaps", "pop3", "pop3s", "imap", "imaps"},
		login:    regexp.MustCompile(`^login: [^\[\] ]* ?\[(?P<client>[0-9A-Fa-f.:]+)\] (?P<user>[^ ]+) \S+ User logged in(?: SESSIONID=<\S*>)?$`),
	},
	// connect from 192.0.2.7
	// POP3 login: user `bob', source system
	"mailutils": {
		programs: []string{"pop3d", "gnu-pop3d", "imap4d", "gnu-imap4d"},
		connect:  regexp.MustCompile(`^(?:\w+ )?connect from (?P<client>[0-9A-Fa-f.:]+)$`),
		login:    regexp.MustCompile("^(?:\\w+ )?(?:POP3|IMAP4) login: user [`'](?P<user>[^`']*)', source \\w+$"),
	},
}

// parsePattern takes the name of a pattern, or an expression (as in package regexp) with groups named client and user.
func parsePattern(text string) (pattern, error) {
	if p, ok := patterns[text]; ok {
		p.from = map[string]string{}
		return p, nil
	}
	if !strings.Contains(text, "?P<client>") {
		return pattern{}, fmt.Errorf("pattern %q: neither dovecot, courier, cyrus nor mailutils, nor an expression with a group (?P<client>...)", text)
	}
	re, err := regexp.Compile(text)
	if err == nil && !strings.HasPrefix(text, "^") {
		err = errors.New("must begin with ^, or a client's words may look like a login")
	}
	if err != nil {
		return pattern{}, fmt.Errorf("pattern %q: %w", text, err)
	}
	return pattern{login: re}, nil
}

// record is a line of a log, taken apart.
type record struct{ host, program, pid, text string }

// process is what no other has, in the log of any number of hosts.
func (r record) process() string { return r.host + "/" + r.pid }

var (
	// Nov 28 14:00:00 host dovecot[12]: text, or the same with the time of RFC 3339.
	syslogLine = regexp.MustCompile(`^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) (\S*[^\s:]) ([^\s\[\]:]+)(?:\[(\d+)\])?: (.*)$`)
	// Nov 28 14:00:00 pop3-login: Info: text, as servers write files of their own.
	ownLine = regexp.MustCompile(`^(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\S+)() ([^\s\[\]:]+)(?:[\[(](\d+)[\])])?: (.*)$`)
)

// parseRecord takes the time and the name of the program off a line.
func parseRecord(line string) (record, bool) {
	for _, re := range []*regexp.Regexp{syslogLine, ownLine} {
		if m := re.FindStringSubmatch(line); m != nil {
			return record{m[1], m[2], m[3], m[4]}, true
		}
	}
	return record{}, false
}

// find returns who has logged in, if the record is about a login.
func (p pattern) find(r record) (stamp.Stamp, bool) {
	if p.programs != nil && !slices.Contains(p.programs, r.program) {
		return stamp.Stamp{}, false
	}
	if p.connect != nil {
		p.note(r)
	}
	m := p.login.FindStringSubmatch(r.text)
	if m == nil {
		return stamp.Stamp{}, false
	}
	st := stamp.Stamp{Server: r.program}
	if i := p.login.SubexpIndex("user"); i >= 0 {
		st.User = m[i]
	}
	client := p.from[r.process()]
	if i := p.login.SubexpIndex("client"); i >= 0 {
		client = m[i]
	}
	delete(p.from, r.process())
	addr, err := netip.ParseAddr(client)
	st.Addr = addr.Unmap().WithZone("")
	return st, err == nil
}

// note keeps whom a process serves.
func (p pattern) note(r record) {
	m := p.connect.FindStringSubmatch(r.text)
	if m == nil || r.pid == "" {
		return
	}
	if len(p.from) >= maxProcesses {
		clear(p.from)
	}
	p.from[r.process()] = m[p.connect.SubexpIndex("client")]
}
