package smtp

import (
	"errors"
	"strings"
	"testing"
)

func TestParseParams(t *testing.T) {
	got, err := ParseParams("SIZE=1000  body=8BITMIME SMTPUTF8")
	if err != nil || len(got) != 3 || got[0] != (Param{"SIZE", "1000", "SIZE=1000"}) ||
		got[1] != (Param{"BODY", "8BITMIME", "body=8BITMIME"}) || got[2] != (Param{"SMTPUTF8", "", "SMTPUTF8"}) {
		t.Errorf("ParseParams = %v, %v", got, err)
	}
	for _, bad := range []string{"SIZE=", "=1", "-A=1", "A=b=c", "A=b\x01", "SIZE=1 size=2", "A B<", strings.Repeat("A", 33)} {
		if got, err := ParseParams(bad); err == nil {
			t.Errorf("ParseParams(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParamValues(t *testing.T) {
	for _, tt := range []struct {
		word string
		rcpt bool
		ok   bool
	}{
		{"SIZE=0", false, true},
		{"SIZE=99999999999999999999", false, false},
		{"SIZE=-1", false, false},
		{"SIZE=0x10", false, false},
		{"SIZE=" + strings.Repeat("9", 400), false, false},
		{"BODY=8bitmime", false, true},
		{"BODY=x", false, false},
		{"RET=HDRS", false, true},
		{"RET=x", false, false},
		{"ENVID=abc+2B", false, true},
		{"ENVID=a+0D+0ARCPT+20TO:<x@y>", false, false},
		{"ENVID=" + strings.Repeat("a", 101), false, false},
		{"AUTH=<>", false, true},
		{"AUTH=<>+0A", false, false},
		{"AUTH=a+4", false, false},
		{"AUTH=a+GG", false, false},
		{"SMTPUTF8", false, true},
		{"SMTPUTF8=1", false, false},
		{"FOO=1", false, false},
		{"NOTIFY=SUCCESS,failure", true, true},
		{"NOTIFY=NEVER", true, true},
		{"NOTIFY=NEVER,SUCCESS", true, false},
		{"NOTIFY=x", true, false},
		{"ORCPT=rfc822;a@b", true, true},
		{"ORCPT=rfc822;a+0D+0A", true, false},
		{"ORCPT=a@b", true, false},
		{"ENVID=\xc3\xa9", false, false},
		{"ENVID=+C3+A9", false, true},
		{"ENVID=a\u00a0b", false, false},
		{"AUTH=\u00e9", false, false},
		{"ORCPT=rfc822;\u00e9@b", true, false},
		{"ORCPT=utf-8;\u00e9@b", true, false},
		{"NOTIFY=NEVER\u0085", true, false},
	} {
		params, err := ParseParams(tt.word)
		if err != nil {
			t.Fatalf("ParseParams(%q): %v", tt.word, err)
		}
		if tt.rcpt {
			err = params[0].CheckRcpt(false)
		} else {
			err = params[0].CheckMail()
		}
		if (err == nil) != tt.ok {
			t.Errorf("%.60q: %v, want ok %v", tt.word, err, tt.ok)
		}
	}
	_, err := Param{Key: "SIZE", Value: "9999999999999999999"}.Size()
	if !errors.Is(err, ErrSizeNumber) {
		t.Errorf("number of 19 nines: %v, want ErrSizeNumber", err)
	}
}

// TestParamsAreWords splits at spaces of ASCII alone: what other servers take for one word is one.
func TestParamsAreWords(t *testing.T) {
	for _, space := range []string{"\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u3000"} {
		params, err := ParseParams("BODY=8BITMIME" + space + "ENVID=x")
		if err == nil {
			t.Errorf("%q: %q, want an error", space, params)
		}
	}
	params, err := ParseParams("ORCPT=utf-8;\u00e9@b  NOTIFY=NEVER ")
	if err != nil || len(params) != 2 || params[0].CheckRcpt(true) != nil {
		t.Errorf("%q, %v", params, err)
	}
	if (Param{Key: ParamOrigRcpt, Value: "utf-8;\xff"}).CheckRcpt(true) == nil {
		t.Error("ORCPT that is not UTF-8 is taken")
	}
}

func TestXtextRoundTrip(t *testing.T) {
	for _, s := range []string{"", "plain", "a b+c=d", "grün"} {
		got, err := DecodeXtext(string(appendXtext(nil, s)))
		if err != nil || got != s {
			t.Errorf("round trip of %q: %q, %v", s, got, err)
		}
	}
}

// appendXtext encodes s as xtext.
func appendXtext(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if b := s[i]; b <= ' ' || b >= 0x7f || b == '+' || b == '=' {
			dst = append(dst, '+', hex[b>>4], hex[b&15])
		} else {
			dst = append(dst, b)
		}
	}
	return dst
}
