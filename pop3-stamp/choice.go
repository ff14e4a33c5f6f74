package main

import (
	"errors"
	"fmt"
	"strings"
)

// choosable are the servers that users may choose by their names, under HOST:PORT and, the first of a host, under HOST.
type choosable map[string]*target

// parseChoosable reads the setting user-upstream.
func parseChoosable(urls []string) (choosable, error) {
	all := choosable{}
	for _, u := range urls {
		t, err := parseUpstream(u)
		if err != nil {
			return nil, err
		}
		for _, name := range []string{strings.ToLower(t.name), strings.ToLower(t.host)} {
			if all[name] == nil {
				all[name] = &t
			}
		}
	}
	return all, nil
}

// choose finds the server in the name that a user gives, and returns the name that the server knows. Where there is none
// of the list, all of it is a name at the usual servers: nobody gets the proxy to connect to anything else.
func (s *settings) choose(name string) (user string, t *target) {
	i := strings.LastIndex(name, s.UserUpstreamDelimiter)
	if i < 1 || len(s.choosable) == 0 {
		return name, nil
	}
	if t := s.choosable[strings.ToLower(name[i+len(s.UserUpstreamDelimiter):])]; t != nil {
		return name[:i], t
	}
	return name, nil
}

// checkDelimiter looks at what stands between a user and a server.
func checkDelimiter(d string) error {
	switch {
	case len(d) != 1 || d[0] <= ' ' || d[0] > '~':
		return fmt.Errorf("%q is not one printable character", d)
	case strings.Trim(d, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:[]") == "":
		return errors.New("may not be a character of names and addresses")
	}
	return nil
}
