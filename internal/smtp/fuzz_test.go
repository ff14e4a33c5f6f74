package smtp

import (
	"strings"
	"testing"
)

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"MAIL FROM:<a@b>", "NOOP\rX", "", "\x16\x03\x01", "ehlo x y"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		cmd, err := ParseCommand(line)
		if err != nil {
			return
		}
		if strings.ContainsAny(cmd.Verb+cmd.Arg, "\r\n\x00") || cmd.Verb == "" || cmd.Verb != strings.ToUpper(cmd.Verb) {
			t.Errorf("ParseCommand(%q) = %q", line, cmd)
		}
		again, err := ParseCommand([]byte(strings.TrimRight(cmd.Verb+" "+cmd.Arg, " ")))
		if err != nil || again != cmd {
			t.Errorf("command %q reads back as %q, %v", cmd, again, err)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"<a@b> SIZE=1", `<"a b"@c>`, "<@a,@b:c@d>", "<>", "<a@[IPv6:::1]>", `<"\">`, "<gr\xc3\xbcn@b>", "a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseCommand([]byte("MAIL FROM:" + s)); err != nil {
			return // such a line does not get this far
		}
		for _, check := range []AddressCheck{CheckStrict, CheckRFC, CheckOff} {
			p, _, err := ParsePath(s, check)
			if err != nil {
				continue
			}
			again, rest, err := ParsePath(p.String(), check)
			if err != nil || rest != "" || again != p {
				t.Errorf("%s: path %q of %q reads back as %q, %q, %v", check, p, s, again, rest, err)
			}
			if len(p.Address)+2 > MaxPath {
				t.Errorf("%s: path of %d bytes", check, len(p.Address)+2)
			}
		}
	})
}

func FuzzParseParams(f *testing.F) {
	for _, s := range []string{"SIZE=1 BODY=8BITMIME", "ENVID=a+0D", "A=b=c", "SMTPUTF8", "NOTIFY=NEVER ORCPT=rfc822;a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		params, err := ParseParams(s)
		if err != nil {
			return
		}
		for _, p := range params {
			if strings.ContainsAny(p.Text, " \r\n\x00") || p.Key == "" {
				t.Errorf("parameter %q of %q", p, s)
			}
			_, _ = p.CheckMail(), p.CheckRcpt(false)
			if text, err := DecodeXtext(p.Value); err == nil && strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("xtext %q decodes to %q", p.Value, text)
			}
		}
	})
}
