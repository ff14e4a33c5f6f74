package senderauth

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
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

// longKey is a public key of so many bits with which nobody can sign.
type longKey int

func (bits longKey) Public() crypto.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits)-1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 1<<31 - 1}
}

func (bits longKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	signature := make([]byte, (bits+7)/8)
	signature[len(signature)-1] = 3
	return signature, nil
}

// TestWRK_25_LongKeys: the work for a signature grows with the cube of its key's length, which the signer's name server
// says. Nothing is computed with a key that is longer than any in use.
func TestWRK_25_LongKeys(t *testing.T) {
	tests := []struct {
		bits         int
		record, want string // %s is the key
	}{
		{2048, "v=DKIM1; k=rsa; p=%s", "signature did not verify"},
		{maxRSA, "v=DKIM1; k=rsa; p=%s", "signature did not verify"},
		{2 * maxRSA, "v=DKIM1; k=rsa; p=%s", "no key for signature: key is too long"},
		{2 * maxRSA, "p=%s", "no key for signature: key is too long"},
		{2 * maxRSA, " p = %s ; t=y; n=a:b", "no key for signature: key is too long"},
		{2 * maxRSA, "=; v=DKIM1; p=%s", "no key for signature: key is too long"},
		{100000, "v=DKIM1; p=%s", "no key for signature: "},
	}
	zone := ""
	for i, tt := range tests {
		public, _ := longKey(tt.bits).Public().(*rsa.PublicKey)
		for form, der := range map[string][]byte{"a": x509.MarshalPKCS1PublicKey(public), "b": pkix(t, public)} {
			zone += fmt.Sprintf("s%d%s._domainkey.example.org. 60 IN TXT", i, form)
			for record := fmt.Sprintf(tt.record, base64.StdEncoding.EncodeToString(der)); record != ""; {
				n := min(len(record), 200)
				zone += fmt.Sprintf(" %q", record[:n])
				record = record[n:]
			}
			zone += "\n"
		}
	}
	r := NewResolver(startDNS(t, zone).address)
	for i, tt := range tests {
		text := signedAs(t, dkim.SignOptions{Signer: longKey(tt.bits)}, mailOf("a@example.org"))
		for _, form := range []string{"a", "b"} {
			var out Results
			out.dkim(t.Context(), r.client(), []byte(strings.Replace(text, " s=s;", fmt.Sprintf(" s=s%d%s;", i, form), 1)))
			if len(out.DKIM) != 1 || !strings.HasPrefix(out.DKIM[0].Reason, tt.want) || out.DKIM[0].Value == authres.ResultTempError {
				t.Errorf("%d bits in %q: %+v, want %q", tt.bits, tt.record, out.DKIM, tt.want)
			}
		}
	}
}

func pkix(t *testing.T, key *rsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
