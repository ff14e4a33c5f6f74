package main

import (
	"bytes"
	"errors"
	"strconv"
)

// Netstrings, as Sendmail's socket map uses them: a decimal length, a colon, that
// many bytes, a comma.

const (
	maxNetstring       = 65536 // bytes between colon and comma
	maxNetstringLength = 16    // bytes before the colon
)

var errNetstring = errors.New("not a netstring")

// readNetstring returns the first netstring in b and how many bytes it takes; 0 if
// it is not complete. comma is false if another byte stands where the comma
// should be. An error means that what follows makes no sense. Leading spaces and
// zeros of the length are taken, as the original takes them.
func readNetstring(b []byte) (text []byte, size int, comma bool, err error) {
	i := bytes.IndexByte(b[:min(len(b), maxNetstringLength+1)], ':')
	if i < 0 {
		if len(b) > maxNetstringLength {
			return nil, 0, false, errNetstring
		}
		return nil, 0, false, nil
	}
	n, err := strconv.ParseUint(string(bytes.TrimLeft(b[:i], " ")), 10, 32)
	if err != nil || n > maxNetstring {
		return nil, 0, false, errNetstring
	}
	end := i + 1 + int(n)
	if len(b) <= end {
		return nil, 0, false, nil
	}
	return b[i+1 : end], end + 1, b[end] == ',', nil
}
