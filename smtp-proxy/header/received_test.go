package header

import (
	"net/netip"
	"testing"
	"time"
)

func TestReceived(t *testing.T) {
	when := time.Date(2000, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name string
		in   Received
		want string
	}{
		{"named client", Received{Helo: "a.example", Name: "b.example", Client: netip.MustParseAddr("192.0.2.7"), Host: "mx.example", With: "ESMTP", ID: "Q1", Rcpt: "<c@d.example>", When: when},
			"Received: from a.example (b.example [192.0.2.7])\r\n\tby mx.example (Postern) with ESMTP id Q1\r\n\tfor <c@d.example>;\r\n\tSun, 2 Jan 2000 03:04:05 +0000"},
		{"IPv6 without a name", Received{Helo: "[IPv6:2001:db8::1]", Client: netip.MustParseAddr("2001:db8::1%eth0"), Host: "mx.example", With: "SMTP", ID: "Q2", When: when},
			"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby mx.example (Postern) with SMTP id Q2;\r\n\tSun, 2 Jan 2000 03:04:05 +0000"},
		{"nobody", Received{Host: "mx.example", With: "SMTP", ID: "Q3", When: when},
			"Received: from unknown ([local])\r\n\tby mx.example (Postern) with SMTP id Q3;\r\n\tSun, 2 Jan 2000 03:04:05 +0000"},
		{"hostile names", Received{Helo: "a)\r\nX: y", Name: "b (c", Client: netip.MustParseAddr("192.0.2.7"), Host: "mx.example", With: "SMTP", ID: "Q4", When: when},
			"Received: from a???X:?y (b??c [192.0.2.7])\r\n\tby mx.example (Postern) with SMTP id Q4;\r\n\tSun, 2 Jan 2000 03:04:05 +0000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.in.AppendTo(nil)); got != tt.want {
				t.Errorf("%+v\n got %q\nwant %q", tt.in, got, tt.want)
			}
		})
	}
}
