package gate

import (
	"testing"

	"postern/internal/smtp"
)

// TestLocalRecipients shows which recipients are ours: never one that names another place in its local part.
func TestLocalRecipients(t *testing.T) {
	local, err := ParseLocalDomains([]string{"Y.test  .sub.test", "bücher.test", "[192.0.2.1] [IPv6:2001:DB8:0::1]"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"bob@y.test": true, "bob@Y.TEST": true, "bob@y.test.": true, "bob+tag@y.test": true, `"bob smith"@y.test`: true, "bob@a.sub.test": true,
		"bob@a.b.sub.test": true, "bob@bücher.test": true, "bob@BÜCHER.test": true, "bob@bu\u0308cher.test": true,
		"bob@xn--bcher-kva.test": true, "bob@XN--bcher-KVA.test": true, "bob@ｙ.test": true,
		"bob@[192.0.2.1]": true, "bob@[IPv6:2001:db8::1]": true, "bob@[ipv6:2001:db8:0:0::1]": true,
		"postmaster": true, "PostMaster": true, `"postmaster"`: true, "a/b=c@y.test": true,

		"bob@other.test": false, "bob@sub.test": false, "bob@xsub.test": false, "bob@y.test.other.test": false, "bob@xy.test": false,
		"bob@y.test..": false, "bob@.y.test": false, "bob@..sub.test": false, "bob@a..sub.test": false, "bob@.sub.test": false,
		"victim%outside.test@y.test": false, "%outside.test@y.test": false, "victim%@y.test": false, "a%b%c@y.test": false,
		"outside.test!victim@y.test": false, "!victim@y.test": false, "victim!@y.test": false, "a!b!c@y.test": false,
		`"victim@outside.test"@y.test`: false, `"victim\@outside.test"@y.test`: false, `"@outside.test:victim"@y.test`: false,
		`"victim%outside.test"@y.test`: false, `"outside.test\!victim"@y.test`: false, `"@"@y.test`: false,
		"victim\uff05outside.test@y.test": false, "victim\uff20outside.test@y.test": false, "a\ufe57b@y.test": false, "a\ufe6bb@y.test": false,
		"victim%outside.test": false, "outside.test!victim": false, "bob": false, `"victim@outside.test"`: false, "postmaster%outside.test": false,
		"postmaster@other.test": false, "bob@[192.0.2.2]": false, "bob@192.0.2.1": false, "bob@[IPv6:2001:db8::2]": false,
		"bob@[127.0.0.1]": false, "bob@a!b.sub.test": false, "bob@x%y.sub.test": false, "bob@[x.sub.test": false, "bob@x].sub.test": false,
		"bob@bucher.test": false, "": false,
	} {
		path, err := smtp.ParseAddress(address, smtp.CheckOff)
		if err != nil {
			continue // nobody can name it
		}
		if got := local.Has(path); got != want {
			t.Errorf("%q: local %v, want %v", address, got, want)
		}
	}
	for _, bad := range []string{"a b..test", "@y.test", "y.test/24", "[192.0.2]", "-x.test", ".", "[127.0.0.1", "a,b"} {
		if _, err := ParseLocalDomains([]string{bad}); err == nil {
			t.Errorf("local domain %q is taken", bad)
		}
	}
}
