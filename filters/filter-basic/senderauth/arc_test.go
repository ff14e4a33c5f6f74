package senderauth

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/authres"
	"github.com/miekg/dns"

	"postern/internal/testenv"
)

// A message that three hosts have sealed, by dkimpy (testdata/arc.py), and the record of their key.
var (
	//go:embed testdata/chain.eml
	chain string
	//go:embed testdata/record.txt
	chainKey string
)

// startSealers is a name server that has the key of the hosts that have sealed chain; that of the last may be another.
func startSealers(t *testing.T, last string, more ...string) *nameServer {
	t.Helper()
	zone := strings.Join(more, "") + "_dmarc.example.org. 60 IN TXT \"v=DMARC1; p=reject\"\n"
	for host, key := range map[string]string{"list.test": chainKey, "forward.test": chainKey, "last.test": last} {
		cut := min(len(key), 250) // a string is no longer than 255 bytes
		zone += fmt.Sprintf("s._domainkey.%s. 60 IN TXT %q %q\n", host, key[:cut], key[cut:])
	}
	return startDNS(t, zone)
}

// swap replaces the first of a text, which must be there.
func swap(old, new string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic("no " + old)
		}
		return strings.Replace(s, old, new, 1)
	}
}

// without removes the first field of a name.
func without(name string) func(string) string {
	return func(s string) string {
		from := strings.Index(s, "\r\n"+name+":") + 2
		to := from
		for to == from || s[to] == ' ' || s[to] == '\t' {
			to += strings.Index(s[to:], "\r\n") + 2
		}
		return s[:from] + s[to:]
	}
}

var chains = []struct {
	name   string
	change func(string) string
	want   string
}{
	{"as it came", func(s string) string { return s }, "pass"},
	{"LF", func(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }, "pass"},
	{"no chain", func(s string) string { return s[strings.Index(s, "From: Anna"):] }, "none"},
	{"a field more on top", func(s string) string { return "Received: by us\r\n" + s }, "pass"},
	{"white space in a signed field", swap("a  list\r\n\tof", "A list of"), "fail"},
	{"only white space in a signed field", swap("a  list\r\n\tof things ", "a list  of things"), "pass"},
	{"a signed field twice", swap("Subject:", "Subject: another\r\nSubject:"), "pass"},
	{"a signed field twice, below", swap("MIME-Version:", "Subject: another\r\nMIME-Version:"), "fail"},
	{"blanks in the body", swap("Hello  there \t", "Hello \t there"), "pass"},
	{"lines at the end", func(s string) string { return s + "\r\n\r\n \r\n" }, "pass"},
	{"no line end", func(s string) string { return strings.TrimRight(s, "\r\n ") }, "pass"},
	{"more body", func(s string) string { return s + "x" }, "fail"},
	{"body in other words", swap("bye", "Bye"), "fail"},
	{"results changed", swap("ARC-Authentication-Results: i=1; list.test; spf=pass", "ARC-Authentication-Results: i=1; list.test; spf=fail"), "fail"},
	{"newest results changed", swap("ARC-Authentication-Results: i=3; last.test; spf=pass", "ARC-Authentication-Results: i=3; last.test; spf=fail"), "fail"},
	{"an old signature changed", swap("ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed", "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/simple"), "fail"},
	{"newest seal gone", without("ARC-Seal"), "fail"},
	{"newest results gone", without("ARC-Authentication-Results"), "fail"},
	{"newest set gone", func(s string) string {
		return without("ARC-Authentication-Results")(without("ARC-Message-Signature")(without("ARC-Seal")(s)))
	}, "pass"},
	{"a set twice", func(s string) string {
		return s[strings.Index(s, "ARC-Seal: i=3"):strings.Index(s, "ARC-Message-Signature: i=3")] + s
	}, "fail"},
	{"instances from 2", func(s string) string { return strings.NewReplacer("i=3;", "i=4;", "i=2;", "i=3;").Replace(s) }, "fail"},
	{"instance 0", swap("i=1;", "i=0;"), "fail"},
	{"instance 51", swap("i=3;", "i=51;"), "fail"},
	{"no instance", swap("ARC-Seal: i=3; ", "ARC-Seal: "), "fail"},
	{"chain has failed", swap("i=3; cv=pass", "i=3; cv=fail"), "fail"},
	{"first with a chain before it", swap("i=1; cv=none", "i=1; cv=pass"), "fail"},
	{"last with none before it", swap("i=3; cv=pass", "i=3; cv=none"), "fail"},
	{"key is not there", swap("d=forward.test; s=s;", "d=forward.test; s=t;"), "fail"},
	{"name of the field in capitals", swap("ARC-Seal: i=2", "arc-SEAL:   i=2"), "pass"},
	{"no base64", swap("; t=1700000000;\r\n b=", "; t=1700000000;\r\n b=!"), "fail"},
	{"of another algorithm", swap("a=rsa-sha256; d=last.test", "a=rsa-sha1; d=last.test"), "fail"},
	{"seal that names fields", swap("i=3; cv=pass;", "i=3; cv=pass; h=from;"), "fail"},
}

func TestARC(t *testing.T) {
	r := NewResolver(startSealers(t, chainKey).address)
	for _, tt := range chains {
		t.Run(tt.name, func(t *testing.T) {
			m := message("192.0.2.7", "x", "a@nosp.test", tt.change(chain))
			got := Check(t.Context(), r, m)
			if string(got.ARC.Value) != tt.want || (tt.want == "fail") != (got.ARC.Reason != "") || (tt.want == "pass") != (len(got.ARC.Sealers) > 0) {
				t.Errorf("arc=%s (%s), sealers %q, want %s", got.ARC.Value, got.ARC.Reason, got.ARC.Sealers, tt.want)
			}
			if field := got.Field("mx.test", m); !strings.Contains(field, "arc="+tt.want) {
				t.Errorf("field %q", field)
			}
		})
	}
}

// TestARCAsDkimpy has the same chains checked by dkimpy.
func TestARCAsDkimpy(t *testing.T) {
	// What is not asked of it: there every name has the key, and it says nothing of a chain that a sealer found broken.
	notAsked := []string{"key is not there", "chain has failed"}
	testenv.Need(t, "dkimpy, which checks ARC", "arcverify")
	dir := t.TempDir()
	args := []string{"testdata/arc.py", "verify", chainKey}
	for i, tt := range chains {
		if slices.Contains(notAsked, tt.name) {
			continue
		}
		file := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(file, []byte(tt.change(chain)), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	out, errors, status := testenv.RunCmd(t, exec.Command("/usr/bin/python3", args...)) // Debian's, for which dkimpy is installed
	if status != 0 {
		t.Fatalf("status %d: %s", status, errors)
	}
	lines := strings.Split(out, "\n")
	for _, tt := range chains {
		if slices.Contains(notAsked, tt.name) {
			continue
		}
		if lines[0] != tt.want {
			t.Errorf("%s: dkimpy says %s, we %s", tt.name, lines[0], tt.want)
		}
		lines = lines[1:]
	}
}

// TestARCKeys has keys that a chain cannot be checked by.
func TestARCKeys(t *testing.T) {
	for name, tt := range map[string]struct {
		record string
		want   authres.ResultValue
	}{
		"as it is":           {chainKey, "pass"},
		"no version":         {strings.TrimPrefix(chainKey, "v=DKIM1; "), "pass"},
		"for mail":           {chainKey + "; s=other:email; h=sha1:sha256", "pass"},
		"revoked":            {"v=DKIM1; p=", "fail"},
		"another service":    {chainKey + "; s=other", "fail"},
		"another hash":       {chainKey + "; h=sha1", "fail"},
		"another version":    {strings.Replace(chainKey, "DKIM1", "DKIM2", 1), "fail"},
		"another kind":       {strings.Replace(chainKey, "k=rsa", "k=ed25519", 1), "fail"},
		"no key":             {"v=DKIM1", "fail"},
		"not a list of tags": {"hello", "fail"},
		"a tag twice":        {chainKey + "; p=", "fail"},
		"short":              {"v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKR2k3iwQm3p0WvCLWkrvWMbCn0pA0y0vZjVQWnVdqLb7+pfm5d1hpe2d8H1GNMiZC8cOEQ1kM1mJ6QYBq9W8Z8CAwEAAQ==", "fail"},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewResolver(startSealers(t, tt.record).address)
			if got := Check(t.Context(), r, message("", "x", "", chain)); got.ARC.Value != tt.want {
				t.Errorf("%+v, want %s", got.ARC, tt.want)
			}
		})
	}
	s := startSealers(t, chainKey)
	s.breakName("s._domainkey.list.test.", dns.RcodeServerFailure)
	got := Check(t.Context(), NewResolver(s.address), message("", "x", "", chain))
	if field := got.Field("mx.test", &Message{}); got.ARC.Value != authres.ResultTempError || !strings.Contains(field, "arc=fail") {
		t.Errorf("name server is down: %+v, %q", got.ARC, field)
	}
	trusts := func(name string) bool { return name == "last.test" }
	forged := strings.Replace(chain, "d=last.test", "d=list.test", 1) // the seal is another's, or the signature
	other := Check(t.Context(), NewResolver(s.address), message("", "x", "", forged))
	if !got.ARC.MayVouch(trusts) || got.ARC.MayVouch(func(name string) bool { return name == "list.test" }) || other.ARC.MayVouch(trusts) {
		t.Errorf("may vouch: %+v; of another: %+v", got.ARC, other.ARC)
	}
}

// TestARCBounds has what would cost much time to check.
func TestARCBounds(t *testing.T) {
	var out Results
	out.arc(t.Context(), NewResolver("127.0.0.1:1").client(), []byte(swap("h=from", "h="+strings.Repeat("x:", maxNames)+"from")(chain)))
	if !strings.Contains(out.ARC.Reason, "more than 1000 fields") {
		t.Errorf("many names: %q", out.ARC.Reason)
	}
	for bits, want := range map[int]bool{maxRSA: true, maxRSA + 1: false} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		key := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537})
		if _, err := parseRSA(key); (err == nil) != want {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// TestVouched has chains whose sealers are trusted or not.
func TestVouched(t *testing.T) {
	r := NewResolver(startSealers(t, chainKey).address)
	got := Check(t.Context(), r, message("192.0.2.7", "x", "a@list.test", chain))
	if got.ARC.Value != authres.ResultPass || got.DMARC != authres.ResultFail {
		t.Fatal(got.String())
	}
	quoted := ARC{Sealers: []string{"list.test"}, found: []string{` list.test; spf=pass (; dmarc=pass header.from=example.org) x="; dmarc=pass header.from=example.org"`}}
	failed := ARC{Sealers: []string{"list.test"}, found: []string{" list.test; dmarc=fail header.from=example.org"}}
	for _, tt := range []struct {
		name, from, trusted string
		arc                 ARC
		want                bool
	}{
		{"all", "example.org", "list.test forward.test last.test", got.ARC, true},
		{"the newest", "example.org", "last.test", got.ARC, true},
		{"none", "example.org", "", got.ARC, false},
		{"an older one", "example.org", "list.test forward.test", got.ARC, false},
		{"another author", "bank.test", "last.test", got.ARC, false},
		{"comments and strings", "example.org", "list.test", quoted, false},
		{"it had failed", "example.org", "list.test", failed, false},
		{"no chain", "example.org", "list.test", ARC{Value: authres.ResultNone}, false},
	} {
		trusts := func(name string) bool { return strings.Contains(tt.trusted, name) }
		if vouched := tt.arc.Vouched(tt.from, trusts); vouched != tt.want {
			t.Errorf("%s: %v", tt.name, vouched)
		}
	}
	all := func(string) bool { return true }
	for header, want := range map[string]bool{"": true, "From: b@example.org\r\n": false, "From: b@bank.test\r\n": false} {
		got := Check(t.Context(), r, message("192.0.2.7", "x", "a@list.test", header+chain))
		if got.ARC.Value != authres.ResultPass || got.DMARC != authres.ResultFail || got.Vouched(all) != want {
			t.Errorf("below %q: %s, vouched for: %v", header, got.String(), got.Vouched(all))
		}
	}
}

// TestCanonicalBody has the examples of RFC 6376, 3.4.5, and bodies without lines.
func TestCanonicalBody(t *testing.T) {
	for body, want := range map[string][2]string{
		" C \r\nD \t E\r\n\r\n\r\n": {" C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		"":                          {"\r\n", ""},
		"\r\n\r\n":                  {"\r\n", ""},
		" \r\n":                     {" \r\n", ""},
		"x":                         {"x\r\n", "x\r\n"},
		"\nx\n\ny\n":                {"\r\nx\r\n\r\ny\r\n", "\r\nx\r\n\r\ny\r\n"},
	} {
		var simple, relaxed bytes.Buffer
		writeBody(&simple, []byte(body), false)
		writeBody(&relaxed, []byte(body), true)
		if simple.String() != want[0] || relaxed.String() != want[1] {
			t.Errorf("%q: simple %q, relaxed %q; want %q", body, &simple, &relaxed, want)
		}
		if bodyHash([]byte(body), true) != sha256.Sum256(relaxed.Bytes()) {
			t.Errorf("%q: another hash", body)
		}
	}
	if got := relaxed("SUBJect : a  b\r\n\tc \r\n"); got != "subject:a b c\r\n" {
		t.Errorf("field %q", got)
	}
}

func FuzzARC(f *testing.F) {
	f.Add(chain)
	f.Add("ARC-Seal: i=1; cv=none; a=rsa-sha256; b=\nARC-Message-Signature: i=1\nARC-Authentication-Results: i=1\n\n")
	r := NewResolver("127.0.0.1:1")
	f.Fuzz(func(t *testing.T, text string) {
		var out Results
		out.arc(t.Context(), r.client(), []byte(text))
		if out.ARC.Value == authres.ResultPass || out.ARC.Value == "" {
			t.Errorf("%q: %+v", text, out.ARC)
		}
		bare(text)
	})
}
