package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol, as HAProxy's proxy-protocol.txt has it. A header is believed only from networks
// of proxy-from, and required from them.
const (
	proxyV1Max    = 107 // bytes of a v1 header with its CR LF
	proxyV2Fixed  = 16  // bytes of a v2 header before the addresses
	proxyV2MaxLen = 2048
)

var (
	proxyV1Start = []byte("PROXY ")
	proxyV2Start = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

var errProxyHeader = errors.New("malformed PROXY header")

// proxyHeader is what a header says; the addresses are not valid if it says nothing.
type proxyHeader struct {
	source, destination netip.AddrPort
}

// readProxyHeader takes the client's address from the load balancer. Nothing is sent before the header
// is whole, and nothing at all if it is not right.
func (s *session) readProxyHeader() bool {
	err := s.conn.SetDeadline(time.Now().Add(s.conf.ProxyTimeout))
	for err == nil {
		var window []byte
		if window, err = s.conn.More(proxyV2Fixed + proxyV2MaxLen); err != nil {
			break
		}
		var h proxyHeader
		var n int
		if h, n, err = parseProxyHeader(window); err != nil || n == 0 {
			continue
		}
		s.conn.Discard(n)
		if h.source.IsValid() {
			s.client, s.local = h.source, h.destination
		}
		if s.conn.Buffered() > 0 && s.listener != listenSMTPS {
			s.refuse(gateEarly, reply(554, "5.5.0", "You talk before the greeting"))
			s.flush()
			return false
		}
		return true
	}
	s.gate = gateProxy
	s.srv.meters.gate(gateProxy)
	s.srv.log.Debug("no PROXY header", "session", s.id, "peer", s.peer.String(), "error", err)
	return false
}

// startsProxyHeader says whether data begins as a header does.
func startsProxyHeader(data []byte) bool {
	return bytes.HasPrefix(data, proxyV1Start) || bytes.HasPrefix(data, proxyV2Start)
}

// parseProxyHeader reads a header at the beginning of data; n is its length, 0 if more bytes are needed.
func parseProxyHeader(data []byte) (h proxyHeader, n int, err error) {
	if data[0] == proxyV2Start[0] {
		return parseProxyV2(data)
	}
	return parseProxyV1(data)
}

func parseProxyV1(data []byte) (h proxyHeader, n int, err error) {
	if k := min(len(data), len(proxyV1Start)); !bytes.Equal(data[:k], proxyV1Start[:k]) {
		return h, 0, errProxyHeader
	}
	i := bytes.IndexByte(data, '\n')
	if i < 0 && len(data) < proxyV1Max {
		return h, 0, nil
	}
	if i < 0 || i >= proxyV1Max || data[i-1] != '\r' {
		return h, 0, errProxyHeader
	}
	words := strings.Split(string(data[:i-1]), " ")
	if words[1] == "UNKNOWN" {
		return h, i + 1, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, 0, errProxyHeader
	}
	h.source, err = proxyAddrPort(words[2], words[4], words[1] == "TCP4")
	if err == nil {
		h.destination, err = proxyAddrPort(words[3], words[5], words[1] == "TCP4")
	}
	return h, i + 1, err
}

func proxyAddrPort(addr, port string, four bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != four {
		return netip.AddrPort{}, errProxyHeader
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, errProxyHeader
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseProxyV2(data []byte) (h proxyHeader, n int, err error) {
	if k := min(len(data), len(proxyV2Start)); !bytes.Equal(data[:k], proxyV2Start[:k]) {
		return h, 0, errProxyHeader
	}
	if len(data) < proxyV2Fixed {
		return h, 0, nil
	}
	length := int(binary.BigEndian.Uint16(data[14:16]))
	command, family := data[12], data[13]
	if command>>4 != 2 || command&15 > 1 || length > proxyV2MaxLen {
		return h, 0, errProxyHeader
	}
	n = proxyV2Fixed + length
	if len(data) < n {
		return h, 0, nil
	}
	body := data[proxyV2Fixed:n]
	if command&15 == 0 || family == 0 {
		return h, n, nil // LOCAL, or AF_UNSPEC: the connection's own addresses count
	}
	return h.addresses(family, body, n)
}

// addresses reads the address block and checks the TLVs behind it.
func (h proxyHeader) addresses(family byte, body []byte, n int) (proxyHeader, int, error) {
	size := 0
	switch family {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	default:
		return h, 0, errProxyHeader
	}
	if len(body) < 2*size+4 {
		return h, 0, errProxyHeader
	}
	source, _ := netip.AddrFromSlice(body[:size])
	destination, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	h.source = netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(ports))
	h.destination = netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	for rest := body[2*size+4:]; len(rest) > 0; {
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return proxyHeader{}, 0, errProxyHeader
		}
		rest = rest[3+int(binary.BigEndian.Uint16(rest[1:])):]
	}
	return h, n, nil
}
