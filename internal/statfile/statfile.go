// Package statfile keeps a file per session in a directory, so that an administrator sees with ls and cat who is
// connected and what they are doing. The format is that of the smtp.proxy family: one line of eleven fields.
package statfile

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"postern/internal/percent"
)

// Fields are what a status file tells. Empty ones are written as "-", addresses without a value as "-:0".
type Fields struct {
	Type       string         // constant per program
	Program    string         // name the program was started under; Dir.New fills it in
	PID        int            // Dir.New fills it in
	Start      time.Time      // of the session
	Local      netip.AddrPort // that the client connected to
	Client     netip.Addr     // IPv4-mapped addresses are written as IPv4
	ClientName string         // host name of the client
	Server     string         // name:port of the next hop
	OrigDst    netip.AddrPort // of a redirected connection
	User       string         // login name
	Status     string         // what the session is doing; the rest of the line
}

// maxField bounds every field, in bytes before encoding: what clients name must not fill the disk.
const maxField = 512

// Append appends the line for f, with its LF, to dst. The fields before the status have no space, no control byte
// and nothing above 0x7E; the status may have spaces.
func (f *Fields) Append(dst []byte) []byte {
	for i, s := range []string{f.Type, f.Program, strconv.Itoa(f.PID), seconds(f.Start), addrPort(f.Local), addr(f.Client),
		f.ClientName, f.Server, addrPort(f.OrigDst), f.User, f.Status} {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = appendField(dst, s, i == 10)
	}
	return append(dst, '\n')
}

// Parse reads a line that Append wrote, with or without its LF.
func Parse(line string) (Fields, error) {
	words := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 11)
	if len(words) != 11 {
		return Fields{}, fmt.Errorf("parse status line %.100q: %d fields, want 11", line, len(words))
	}
	for i, w := range words {
		if w == "-" {
			w = ""
		}
		words[i] = percent.Decode(w)
	}
	f := Fields{Type: words[0], Program: words[1], ClientName: words[6], Server: words[7], User: words[9], Status: words[10]}
	var err error
	if f.PID, err = strconv.Atoi(words[2]); err != nil {
		return Fields{}, fmt.Errorf("parse status line %.100q: %w", line, err)
	}
	if words[3] != "" {
		n, err := strconv.ParseInt(words[3], 10, 64)
		if err != nil {
			return Fields{}, fmt.Errorf("parse status line %.100q: %w", line, err)
		}
		f.Start = time.Unix(n, 0)
	}
	// An address that is not known stays the zero value.
	f.Local, _ = netip.ParseAddrPort(words[4])
	f.Client, _ = netip.ParseAddr(words[5])
	f.OrigDst, _ = netip.ParseAddrPort(words[8])
	return f, nil
}

func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

func addrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return "-:0"
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()).String()
}

// appendField encodes bytes below 0x21, above 0x7E, and '%'; with spaces, a space inside the text stays.
func appendField(dst []byte, s string, spaces bool) []byte {
	if spaces {
		s = strings.Trim(s, " ")
	}
	if s == "" {
		return append(dst, '-')
	}
	if len(s) > maxField {
		s = s[:maxField]
	}
	s = percent.EncodeCommand(s)
	if spaces {
		s = strings.ReplaceAll(s, "%20", " ")
	}
	return append(dst, s...)
}

// Command turns a command line of a client into a status, without what must not be seen: passwords, and the initial
// responses of AUTH.
func Command(line string) string {
	line = strings.TrimRight(line, "\r\n")
	verb, rest, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
	switch strings.ToUpper(verb) {
	case "PASS":
		return "PASS ****"
	case "AUTH", "APOP":
		word, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		if word == "" {
			return strings.ToUpper(verb)
		}
		return strings.ToUpper(verb) + " " + word
	}
	return line
}
