package sockspec

import (
	"net"
	"testing"
)

func TestAddrPort(t *testing.T) {
	for _, tt := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 25}, "192.0.2.1:25"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1").To16(), Port: 25}, "192.0.2.1:25"},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 25, Zone: "eth0"}, "[fe80::1]:25"},
		{&net.UnixAddr{Name: "/x", Net: "unix"}, "invalid AddrPort"},
	} {
		if got := AddrPort(tt.addr).String(); got != tt.want {
			t.Errorf("%v is %s, want %s", tt.addr, got, tt.want)
		}
	}
}
