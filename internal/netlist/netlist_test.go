package netlist

import (
	"net/netip"
	"testing"
)

func TestList(t *testing.T) {
	nets, err := Parse([]string{"10.0.0.0/8 192.0.2.1", "::ffff:172.16.0.0/108", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "192.0.2.1": true, "192.0.2.2": false, "172.16.3.4": true, "172.32.0.1": false, "2001:db8::1": true, "2001:db9::1": false,
	} {
		if got := nets.Has(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	for _, bad := range []string{"10.0.0.0/33", "x", "10.0.0"} {
		if _, err := Parse([]string{bad}); err == nil {
			t.Errorf("%q is taken for a network", bad)
		}
	}
}
