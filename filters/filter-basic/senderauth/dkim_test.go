package senderauth

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/authres"
	"github.com/emersion/go-msgauth/dkim"
)

// signedAs signs a message with LF line ends as the options say.
func signedAs(t testing.TB, options dkim.SignOptions, message string) string {
	t.Helper()
	options.Domain, options.Selector = "example.org", "s"
	if options.Signer == nil {
		options.Signer = key
	}
	var out bytes.Buffer
	if err := dkim.Sign(&out, strings.NewReader(strings.ReplaceAll(message, "\n", "\r\n")), &options); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n")
}

// TestWRK_24_SignaturesThatMakeWork: what a signature makes the verifier do is a product of what stands in the message.
// Beyond the bounds nothing is verified, and that is no failure for now, with which a message would not be refused.
func TestWRK_24_SignaturesThatMakeWork(t *testing.T) {
	r := NewResolver(startZone(t).address)
	mail := mailOf("a@example.org")
	named := func(n int) dkim.SignOptions {
		return dkim.SignOptions{HeaderKeys: append([]string{"From"}, strings.Fields(strings.Repeat("x ", n-1))...)}
	}
	one := func(n int, message string) string { // the field alone
		text := signedAs(t, named(n), message)
		return strings.TrimSuffix(text, message)
	}
	short := strings.Repeat("y:\n", 10000) // bytes of the header, in as many fields as can be
	tests := []struct {
		name, text, want string
	}{
		{"as many names as may be", signedAs(t, named(maxNames-1), mail), "pass"},
		{"too many names", signedAs(t, named(maxNames+1), mail), "permerror too many fields are signed"},
		{"too many, with blanks between", strings.Replace(signedAs(t, named(maxNames-1), mail), ":x:x:x:", ":x:\n x :x:"+strings.Repeat("x:", 10), 1), "permerror too many fields are signed"},
		{"too many, in a tag that is none", strings.Replace(signedAs(t, named(maxNames+1), mail), "Signature:", "Signature: =;", 1), "permerror too many fields are signed"},
		{"too many, blanks behind the name", strings.Replace(signedAs(t, named(maxNames+1), mail), "Signature:", "Signature \t:", 1), "permerror too many fields are signed"},
		{"too many, name folded", strings.Replace(signedAs(t, named(maxNames+1), mail), "Signature:", "Signature\n :", 1), "permerror too many fields are signed"},
		{"too many, other letters", strings.Replace(signedAs(t, named(maxNames+1), mail), "DKIM-Signature:", "d\u212aim-\u017fignature:", 1), "permerror too many fields are signed"},
		{"too many, second signature", signed(t, "example.org", signedAs(t, named(maxNames+1), mail)), "permerror too many fields are signed"},
		{"signatures with many fields", strings.Repeat(one(900, mail), 5) + short + mail, "permerror too many fields are signed"},
		{"signatures of ordinary size", strings.Repeat(one(60, mail), maxSignatures) + strings.Repeat("X-Long: "+strings.Repeat("z", 70)+"\n", 1000) + mail, strings.Repeat("pass ", maxSignatures)},
		{"many folds", strings.Repeat("X: y\n"+strings.Repeat(" \n", 12<<10), 5) + signed(t, "example.org", mail), "permerror header is too large"},
		{"many empty lines", signed(t, "example.org", mail+strings.Repeat("\n", maxBlank+1)), "permerror too many empty lines"},
		{"many empty lines, CR LF", strings.ReplaceAll(signed(t, "example.org", mail+strings.Repeat("\n", maxBlank/2+1)), "\n", "\r\n"), "permerror too many empty lines"},
		{"many empty lines within", signed(t, "example.org", mail+strings.Repeat("\n", maxBlank+1)+"end\n"), "permerror too many empty lines"},
		{"many empty lines, relaxed", signedAs(t, dkim.SignOptions{BodyCanonicalization: "relaxed"}, mail+strings.Repeat("\n", maxBlank+1)), "permerror too many empty lines"},
		{"some empty lines", signed(t, "example.org", mail+strings.Repeat(strings.Repeat("\n", 10000)+"x\n", 40)), "pass"},
		{"no signature", mail + strings.Repeat("\n", maxBlank+1), ""},
		{"large, many signatures", strings.Repeat(one(2, mail+strings.Repeat("hello\n", maxHashed/6/minSignatures)), maxSignatures) + mail + strings.Repeat("hello\n", maxHashed/6/minSignatures),
			strings.Repeat("pass ", minSignatures)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out Results
			out.dkim(t.Context(), r.client(), []byte(tt.text))
			var got []string
			for _, d := range out.DKIM {
				got = append(got, strings.TrimSpace(string(d.Value)+" "+d.Reason))
			}
			if all := strings.Join(got, " "); all != strings.TrimSpace(tt.want) {
				t.Errorf("%s, want %s", all, tt.want)
			}
		})
	}
	forged := strings.Repeat(one(maxNames+1, mail), 2) + mail
	if got := Check(t.Context(), r, message("203.0.113.9", "x", "a@nosp.test", forged)); got.DMARC != authres.ResultFail || got.Policy != "reject" {
		t.Errorf("%s, policy %q; want DMARC to fail", got.String(), got.Policy)
	}
}
