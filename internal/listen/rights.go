package listen

import (
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// Rights are the settings for the files of UNIX sockets, for programs to embed.
type Rights struct {
	SocketMode  []string `name:"socket-mode" sep:"none" placeholder:"MODE [LISTENER...]" help:"Rights of UNIX sockets, octal, for the listeners named behind it, or for all."`
	SocketGroup []string `name:"socket-group" sep:"none" placeholder:"GROUP [LISTENER...]" help:"Group of UNIX sockets, which may connect, for the listeners named behind it, or for all."`
}

// On returns the requests with these rights. A line that makes no sense is an error of all that look at the requests.
func (r Rights) On(requests []Request) []Request {
	requests = slices.Clone(requests)
	each(requests, "socket-group", r.SocketGroup, func(to *Request, group string) error {
		if to.Mode == 0 {
			to.Mode = DefaultMode
		}
		to.Group, to.Mode = group, to.Mode|0o070
		return nil
	})
	each(requests, "socket-mode", r.SocketMode, func(to *Request, text string) error {
		mode, err := strconv.ParseUint(text, 8, 32)
		if err != nil || mode == 0 || mode > 0o777 {
			return fmt.Errorf("%q is no mode from 1 to 777, octal", text)
		}
		to.Mode = fs.FileMode(mode)
		return nil
	})
	return requests
}

// each has set carry out lines of a value and the listeners that it is for, or is for all; the last one counts.
func each(requests []Request, key string, lines []string, set func(to *Request, value string) error) {
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) == 0 {
			words = []string{""} // which is no value
		}
		known := 0
		for i := range requests {
			if len(words) > 1 && !slices.Contains(words[1:], requests[i].Name) {
				continue
			}
			known++
			if err := set(&requests[i], words[0]); err != nil {
				requests[i].wrong = fmt.Errorf("%s: %w", key, err)
			}
		}
		if len(words) > 1 && known < len(words)-1 && len(requests) > 0 {
			requests[0].wrong = fmt.Errorf("%s %q: the listeners are %s", key, line, names(requests))
		}
	}
}

// gid returns the number of the request's group, -1 without one. A group that is not there (yet) is an error that wraps
// fs.ErrNotExist.
func (r Request) gid() (int, error) {
	if r.Group == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(r.Group, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(r.Group)
	if err != nil {
		return -1, fmt.Errorf("group %q of the socket: %w", r.Group, fs.ErrNotExist)
	}
	return strconv.Atoi(g.Gid)
}
