package test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// varies are the parts of a fate that are never the same, and what takes their place. These patterns and those of all
// messages below begin with a text, as others take their time where the race detector watches them.
var varies = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`queued as \S+`), "queued as ID"},
	{regexp.MustCompile(`=_\d+-\d+-\d+`), "=_BOUNDARY"},
	{regexp.MustCompile(`\[127\.0\.0\.1\]:\d+`), "NEXTHOP"},
	{regexp.MustCompile(`(\nfrom: .*?) SIZE=\d+`), "$1"}, // with the fields of the way
	{regexp.MustCompile(`(?m)(\nrelayok \S+ \S+) \d+ \S+ \d+( NOQUEUE)$`), "$1 PORT OURS PORT$2"},
	{regexp.MustCompile(`(?m)(\nhelook \S+ \S+ \S+) \d+ \S+ \d+( NOQUEUE)$`), "$1 PORT OURS PORT$2"},
	{regexp.MustCompile(`(\nX-Scanned-By: a test) on .*`), "$1"}, // an address of this host
	{regexp.MustCompile(`\nCOMMANDS: =client_port .*`), ""},
	{regexp.MustCompile(`, \d\d \w{3} 20[2-9]\d \d\d:\d\d:\d\d [+-]\d{4}`), ", DATE"},
	{regexp.MustCompile(`(\nContent-Disposition: .*)(\nContent-Transfer-Encoding: .*)`), "$2$1"}, // the order of a hash of Perl's
	{regexp.MustCompile(`\n\w+(Auto-Submitted: )`), "\n$1"},                                      // behind the end of a queue id
}

var weekdays = strings.NewReplacer("Mon, DATE", "DATE", "Tue, DATE", "DATE", "Wed, DATE", "DATE", "Thu, DATE", "DATE", "Fri, DATE", "DATE",
	"Sat, DATE", "DATE", "Sun, DATE", "DATE")

// A difference is one by intent.
type difference struct {
	item  string         // of the section BESIDE THE MILTER in smtp-proxy(8), which has the reason
	cases *regexp.Regexp // names of messages
	what  *regexp.Regexp // in the fate on both ways
	with  string
}

// differences are all that may differ. What they say is compared without them, everything else as it is.
var differences = []difference{
	mayDiffer("macros", "", `\nCOMMANDS: =(daemon_name|daemon_port|i|if_addr|if_name|verify|deadline) .*`, ""),
	mayDiffer("macros", "^do (resend|by-recipient)", `(?m)^\tby \S+ (\(envelope-sender)`, "\tby HOST $1"),
	mayDiffer("queue id", "", `(?m)\nCOMMANDS: [iQ]\w+$`, ""),
	mayDiffer("queue id", "^do (resend|by-recipient)", `(with ESMTP id) \w+`, "$1 ID"),
	mayDiffer("told at once", "^(relayok|helook) ", `\A(?:reply .*\n)*reply \w+: ([45]).*\n`, "refused $1\n"),
	mayDiffer("text", "percent$|^do bounce-bytes$", `(100% |Caf)(?:  |\?)`, "$1"),
	mayDiffer("faults", "", `451 (?:4\.7\.1 Service unavailable - try again later|4\.3\.0 Message cannot be checked now, try again later \(\w+\))`, "fault"),
	mayDiffer("faults", "^do raw-overlong", `(?m)^reply \.: (fault|554 5.4.0 Overlong line in RESULTS file)`, "reply .: fault"),
	mayDiffer("source routes", "^envelope route$", `(?s).*`, ""),
	mayDiffer("normal form", "^text (folded|no-space|empty-fields)$", `(?m)^(INPUTMSG: [\w-]+:)[ \t]*`, "$1 "),
	mayDiffer("normal form", "^text blank-before-colon$", `X-Mailbox-Line: From : `, "From: "),
	mayDiffer("normal form", "^text many-types$", `Content-Type: text/x-three\n`, ""),
	mayDiffer("normal form", "^text two-encodings$", `(HEADERS: |INPUTMSG: )?(Content-Transfer-Encoding: base64|Content-Disposition: attachment)\n`, ""),
	mayDiffer("normal form", "^text (blank-continuation|no-empty-line|empty|long.*)$|^do add-blank-line", `\s+|%20|INPUTMSG:`, ""),
	mayDiffer("fields left out", "^text return-path$", `(?m)^(HEADERS|INPUTMSG): (Return-Path|Bcc): .*\n`, ""),
	mayDiffer("control bytes", "^do add-(cr|control)", "[\r\x01\x7f\x1b ]", ""),
	mayDiffer("addresses", "^do recipient-(again|case|two)", `(?mi)^to: <(one|two)@.*\n`, ""),
	mayDiffer("empty body", "^do (entire-empty|raw-empty-body)", `(?s)(\ncontent:\n.*?\n\n).*`, "$1"),
	mayDiffer("behind F", "^do raw-refused-behind", `(?m)^(X-New: lost|X-Scanned-By: .*)\n`, ""),
	mayDiffer("refused anyway", "^envelope refused$", `(?m)^(recipok |COMMANDS: R)<refused@there\.test>.*\n`, ""),
	mayDiffer("refused anyway", "^envelope refused$", `(?m)^(scan .* )\d+$`, "${1}N"), // so many recipients
}

func mayDiffer(item, cases, what, with string) difference {
	return difference{item, regexp.MustCompile(cases), regexp.MustCompile(what), with}
}

// text gives all of a fate, without what varies and differs by intent.
func (f *fate) text(name string, used map[int]bool) string {
	text := ""
	for _, reply := range f.replies {
		text += "reply " + reply + "\n"
	}
	text += f.notes + "from: " + f.from + "\n"
	for _, rcpt := range f.to {
		text += "to: " + rcpt + "\n"
	}
	text = lf(text + "content:\n" + f.content)
	for _, v := range varies {
		text = v.what.ReplaceAllString(text, v.with)
	}
	text = weekdays.Replace(text)
	for i, d := range differences {
		if d.cases.MatchString(name) && d.what.MatchString(text) {
			used[i] = true
			text = d.what.ReplaceAllString(text, d.with)
		}
	}
	return text
}

// byPostfix and byPostern match the field that a server adds.
var (
	byPostfix = regexp.MustCompile(`Received:[^\n]*\n\tby mx\.example\.net \(Postfix\)[^\n]*\n(\t[^\n]*\n)*`)
	byPostern = regexp.MustCompile(`Received:[^\n]*\n\tby mx\.example\.net \(Postern\)[^\n]*\n(\t[^\n]*\n)*`)
)

// sameField has one mark in the place of the field that the server with the filter adds, so that where the filter puts
// others beside it is compared; that of Postfix behind smtp-proxy is left out.
func sameField(content string, proxied bool) string {
	content = lf(content)
	if proxied {
		content = byPostfix.ReplaceAllString(content, "")
		return byPostern.ReplaceAllString(content, "Received: ours\n")
	}
	return byPostfix.ReplaceAllString(content, "Received: ours\n")
}

// TestPageSaysWhatDiffers holds the section of smtp-proxy(8) against what is allowed to differ.
func TestPageSaysWhatDiffers(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../man/smtp-proxy.8")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), ".Sh BESIDE THE MILTER\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	var items, allowed []string
	for _, m := range regexp.MustCompile(`(?m)^\.It (.*)$`).FindAllStringSubmatch(section, -1) {
		items = append(items, m[1])
	}
	for _, d := range differences {
		allowed = append(allowed, d.item)
	}
	slices.Sort(items)
	slices.Sort(allowed)
	if allowed = slices.Compact(allowed); !slices.Equal(items, allowed) {
		t.Errorf("smtp-proxy(8) has %q, and what may differ is %q", items, allowed)
	}
}
