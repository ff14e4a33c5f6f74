package filter

import (
	"crypto/tls"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

func TestClientMacro(t *testing.T) {
	for _, tt := range []struct{ addr, name, claimed, want string }{
		{"192.0.2.1", "one.test", "", "one.test [192.0.2.1]"},
		{"192.0.2.1", "", "", "unknown [192.0.2.1]"},
		{"192.0.2.1", "", "forged.test", "forged.test [192.0.2.1] (may be forged)"},
		{"2001:db8::1", "six.test", "", "six.test [2001:db8::1]"},
	} {
		c := Client{IP: tt.addr, Name: tt.name, Claimed: tt.claimed}
		if got := c.peer(); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestResolved(t *testing.T) {
	for in, want := range map[string]string{
		"<Ann@Example.ORG>": "ann@example.org", "<>": "", `<"ann"@example.org>`: "ann@example.org", `<"a.b"@example.org>`: "a.b@example.org",
		`<"a b"@example.org>`: `"a b"@example.org`, `<"a\"b"@example.org>`: `"a\"b"@example.org`, `<"a@b"@example.org>`: `"a@b"@example.org`, `<""@example.org>`: `""@example.org`,
		`<"a@victim.example> x"@evil.example>`: `"a@victim.example> x"@evil.example`,
	} {
		if got := resolved(path(t, in)); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

// TestCipherNames holds our names and strengths against those of OpenSSL.
func TestCipherNames(t *testing.T) {
	// Those that Debian's OpenSSL has no longer are written down.
	known := map[string]string{"TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA 112", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA 112",
		"TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA 128", "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA 128", "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA 128"}
	stdout, stderr, status := testenv.RunCmd(t, exec.Command(testenv.Path(t, "names of ciphers", "openssl"), "ciphers", "-stdname", "-v", "ALL:@SECLEVEL=0"))
	if status != 0 {
		t.Fatal(stderr)
	}
	for line := range strings.Lines(stdout) {
		// TLS_AES_256_GCM_SHA384 - TLS_AES_256_GCM_SHA384 TLSv1.3 Kx=any Au=any Enc=AESGCM(256) Mac=AEAD
		words := strings.Fields(line)
		_, bits, _ := strings.Cut(line, " Enc=")
		_, bits, _ = strings.Cut(bits, "(")
		bits, _, _ = strings.Cut(bits, ")")
		known[words[0]] = words[2] + " " + bits
	}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		name := suite.Name
		if got := cipherName(suite.ID) + " " + cipherBits(suite.ID); got != known[name] {
			t.Errorf("%s is %q, want %q", name, got, known[name])
		}
	}
}
