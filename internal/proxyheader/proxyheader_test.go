package proxyheader

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// v2 makes a header of version 2.
func v2(command, family byte, body string) string {
	h := append([]byte{}, v2Start...)
	h = append(h, 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(h, uint16(len(body)))) + body
}

func addresses(source, destination string, sourcePort, destinationPort uint16) string {
	b := append(netip.MustParseAddr(source).AsSlice(), netip.MustParseAddr(destination).AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, sourcePort)
	return string(binary.BigEndian.AppendUint16(b, destinationPort))
}

func TestParse(t *testing.T) {
	four, six := addresses("192.0.2.7", "192.0.2.25", 4444, 25), addresses("2001:db8::7", "2001:db8::25", 4444, 25)
	long := "PROXY UNKNOWN " + strings.Repeat("f", v1Max-len("PROXY UNKNOWN \r\n")) + "\r\n"
	tests := []struct {
		name, data string
		source     string // "" for none, "-" for an error
	}{
		{"v1", "PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n", "192.0.2.7:4444"},
		{"v1 IPv6", "PROXY TCP6 2001:db8::7 2001:db8::25 4444 25\r\n", "[2001:db8::7]:4444"},
		{"v1 mapped", "PROXY TCP6 ::ffff:192.0.2.7 ::1 4444 25\r\n", "192.0.2.7:4444"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", ""},
		{"v1 unknown with anything", "PROXY UNKNOWN a b c\r\n", ""},
		{"v1 of 107 bytes", long, ""},
		{"v1 of 108 bytes", strings.Replace(long, "\r", "f\r", 1), "-"},
		{"v1 without end", "PROXY " + strings.Repeat("x", 200), "-"},
		{"v1 LF only", "PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\n", "-"},
		{"v1 wrong family", "PROXY TCP4 ::1 ::1 1 2\r\n", "-"},
		{"v1 leading zero in the port", "PROXY TCP4 192.0.2.7 192.0.2.25 04444 25\r\n", "-"},
		{"v1 leading zero in the address", "PROXY TCP4 192.0.02.7 192.0.2.25 4444 25\r\n", "-"},
		{"v1 port too large", "PROXY TCP4 192.0.2.7 192.0.2.25 65536 25\r\n", "-"},
		{"v1 negative port", "PROXY TCP4 192.0.2.7 192.0.2.25 -1 25\r\n", "-"},
		{"v1 trailing text", "PROXY TCP4 192.0.2.7 192.0.2.25 4444 25 x\r\n", "-"},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "-"},
		{"v1 lower case", "proxy TCP4 192.0.2.7 192.0.2.25 4444 25\r\n", "-"},
		{"v2", v2(1, 0x11, four), "192.0.2.7:4444"},
		{"v2 IPv6", v2(1, 0x21, six), "[2001:db8::7]:4444"},
		{"v2 mapped", v2(1, 0x21, addresses("::ffff:192.0.2.7", "::1", 1, 2)), "192.0.2.7:1"},
		{"v2 LOCAL", v2(0, 0, ""), ""},
		{"v2 LOCAL with addresses", v2(0, 0x11, four), ""},
		{"v2 AF_UNSPEC", v2(1, 0, "whatever"), ""},
		{"v2 TLV", v2(1, 0x11, four+"\xe0\x00\x02hi"), "192.0.2.7:4444"},
		{"v2 TLV past the end", v2(1, 0x11, four+"\xe0\x00\x09hi"), "-"},
		{"v2 half a TLV", v2(1, 0x11, four+"\xe0\x00"), "-"},
		{"v2 too short", v2(1, 0x11, four[:11]), "-"},
		{"v2 length 0", v2(1, 0x11, ""), "-"},
		{"v2 too long", v2(1, 0x11, four+strings.Repeat("x", v2MaxBody)), "-"},
		{"v2 largest", v2(1, 0x11, four+"\xe0\x2f\xe1"+strings.Repeat("x", v2MaxBody-15)), "192.0.2.7:4444"},
		{"v2 AF_UNIX", v2(1, 0x31, strings.Repeat("x", 216)), ""},
		{"v2 AF_UNIX, short", v2(1, 0x31, ""), ""},
		{"v2 AF_UNIX, datagrams", v2(1, 0x32, strings.Repeat("x", 216)), ""},
		{"v2 UDP", v2(1, 0x12, four), ""},
		{"v2 UDP over IPv6", v2(1, 0x22, six), ""},
		{"v2 IPv4 without protocol", v2(1, 0x10, four), ""},
		{"v2 TCP without family", v2(1, 0x01, ""), ""},
		{"v2 family of nobody", v2(1, 0x41, four), "-"},
		{"v2 protocol of nobody", v2(1, 0x13, four), "-"},
		{"v2 unknown command", v2(2, 0x11, four), "-"},
		{"version 1 in v2", strings.Replace(v2(1, 0x11, four), "\x21", "\x11", 1), "-"},
		{"bad signature", strings.Replace(v2(1, 0x11, four), "QUIT\n", "QUIT\r", 1), "-"},
		{"something else", "EHLO x\r\n", "-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tt.data + "rest"))
			if (err != nil) != (tt.source == "-") || err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				return
			}
			want, _ := netip.ParseAddrPort(tt.source)
			if n != len(tt.data) || h.Source != want {
				t.Errorf("%d bytes of %d, source %v, want %v", n, len(tt.data), h.Source, want)
			}
			if !Starts([]byte(tt.data)) {
				t.Error("does not start as a header does")
			}
			// Every beginning of it asks for more.
			for i := range tt.data {
				if _, n, err := Parse([]byte(tt.data[:i])); n != 0 || err != nil {
					t.Errorf("first %d bytes: %d, %v", i, n, err)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 192.0.2.25 4444 25\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(1, 0x11, addresses("192.0.2.7", "192.0.2.25", 4444, 25)+"\xe0\x00\x02hi")))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, n, err := Parse(data)
		if n < 0 || n > len(data) || n > MaxSize {
			t.Fatalf("%q: %d bytes", data, n)
		}
		if err == nil && n == 0 && len(data) >= MaxSize {
			t.Fatalf("%d bytes are not enough", len(data))
		}
		if err != nil || n == 0 {
			return
		}
		if h.Source.Addr().Is4In6() || h.Source.Addr().Zone() != "" {
			t.Errorf("%q: source %v", data, h.Source)
		}
		if again, m, err := Parse(data[:n]); err != nil || m != n || again != h {
			t.Errorf("%q: %v, %d, %v without what is behind it", data, again, m, err)
		}
	})
}
