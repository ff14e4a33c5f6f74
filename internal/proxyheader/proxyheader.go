// Package proxyheader reads the header of the PROXY protocol, version 1 and 2, in which a load balancer says for whom
// it connects (HAProxy's proxy-protocol.txt). Whom to believe is the caller's business.
package proxyheader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// MaxSize bounds a header, in bytes; a longer one is malformed. Certificates of clients are longer than all else in it.
const MaxSize = v2Fixed + v2MaxBody

const (
	v1Max     = 107 // bytes of a v1 header with its CR LF
	v2Fixed   = 16  // bytes of a v2 header before the addresses
	v2MaxBody = 12<<10 - v2Fixed
)

// Address families with their protocol.
const (
	tcp4 = 0x11
	tcp6 = 0x21
)

var (
	v1Start = []byte("PROXY ")
	v2Start = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// ErrMalformed is the error for bytes that are no header, or a broken one.
var ErrMalformed = errors.New("malformed PROXY header")

// Header is what a header says. The addresses are not valid if it says nothing of them: then those of the connection
// count. IPv4 addresses within IPv6 are turned into IPv4.
type Header struct {
	Source, Destination netip.AddrPort
}

// Starts reports whether data begins as a header does.
func Starts(data []byte) bool {
	return bytes.HasPrefix(data, v1Start) || bytes.HasPrefix(data, v2Start)
}

// Parse reads a header at the beginning of data; n is its length, 0 if more bytes are needed.
func Parse(data []byte) (h Header, n int, err error) {
	if len(data) == 0 {
		return h, 0, nil
	}
	if data[0] == v2Start[0] {
		return parseV2(data)
	}
	return parseV1(data)
}

func parseV1(data []byte) (h Header, n int, err error) {
	if k := min(len(data), len(v1Start)); !bytes.Equal(data[:k], v1Start[:k]) {
		return h, 0, ErrMalformed
	}
	i := bytes.IndexByte(data, '\n')
	if i < 0 && len(data) < v1Max {
		return h, 0, nil
	}
	if i < 0 || i >= v1Max || data[i-1] != '\r' {
		return h, 0, ErrMalformed
	}
	words := strings.Split(string(data[:i-1]), " ")
	if words[1] == "UNKNOWN" {
		return h, i + 1, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, 0, ErrMalformed
	}
	h.Source, err = addrPort(words[2], words[4], words[1] == "TCP4")
	if err == nil {
		h.Destination, err = addrPort(words[3], words[5], words[1] == "TCP4")
	}
	return h, i + 1, err
}

func addrPort(addr, port string, four bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != four {
		return netip.AddrPort{}, ErrMalformed
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' || port[0] == '+' {
		return netip.AddrPort{}, ErrMalformed
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseV2(data []byte) (h Header, n int, err error) {
	if k := min(len(data), len(v2Start)); !bytes.Equal(data[:k], v2Start[:k]) {
		return h, 0, ErrMalformed
	}
	if len(data) < v2Fixed {
		return h, 0, nil
	}
	length := int(binary.BigEndian.Uint16(data[14:16]))
	command, family := data[12], data[13]
	if command>>4 != 2 || command&15 > 1 || length > v2MaxBody {
		return h, 0, ErrMalformed
	}
	n = v2Fixed + length
	if len(data) < n {
		return h, 0, nil
	}
	body := data[v2Fixed:n]
	switch {
	case family>>4 > 3 || family&15 > 2: // "Receivers must drop connections presenting unexpected values here."
		return h, 0, ErrMalformed
	case command&15 == 0, family != tcp4 && family != tcp6:
		return h, n, nil // LOCAL, or addresses of no use here: the connection's own count
	}
	return h.addresses(family, body, n)
}

// addresses reads the address block and checks the TLVs behind it.
func (h Header) addresses(family byte, body []byte, n int) (Header, int, error) {
	size := 4
	if family == tcp6 {
		size = 16
	}
	if len(body) < 2*size+4 {
		return h, 0, ErrMalformed
	}
	source, _ := netip.AddrFromSlice(body[:size])
	destination, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	h.Source = netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(ports))
	h.Destination = netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	for rest := body[2*size+4:]; len(rest) > 0; {
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return Header{}, 0, ErrMalformed
		}
		rest = rest[3+int(binary.BigEndian.Uint16(rest[1:])):]
	}
	return h, n, nil
}
