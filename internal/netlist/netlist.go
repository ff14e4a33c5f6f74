// Package netlist reads lists of networks, as settings have them, and finds addresses in them.
package netlist

import (
	"fmt"
	"net/netip"
	"strings"
)

// List is a list of networks.
type List []netip.Prefix

// Parse reads networks and single addresses, several to a line separated by spaces. IPv4 in IPv6 becomes IPv4.
func Parse(lines []string) (List, error) {
	var l List
	for _, line := range lines {
		for word := range strings.FieldsSeq(line) {
			prefix, err := netip.ParsePrefix(word)
			if err != nil {
				addr, err := netip.ParseAddr(word)
				if err != nil {
					return nil, fmt.Errorf("%q is neither a network nor an address", word)
				}
				prefix = netip.PrefixFrom(addr, addr.BitLen())
			}
			if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
				prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
			}
			l = append(l, prefix.Masked())
		}
	}
	return l, nil
}

// Has reports whether an address is in one of the networks. It is in its canonical form: without a zone, IPv4 as IPv4.
func (l List) Has(addr netip.Addr) bool {
	for _, n := range l {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
