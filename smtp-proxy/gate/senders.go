package gate

import (
	"fmt"
	"strings"

	"postern/internal/namedfile"
	"postern/internal/smtp"
)

// Senders says as whom each user may send: by the user's name in lower case, addresses and domains (with @ before
// them), in lower case.
type Senders map[string][]string

// maxSenders bounds the file, in bytes.
const maxSenders = 16 << 20

// ReadSenders reads a file with a user and its senders on each line. The user * stands for all others.
func ReadSenders(path string) (Senders, error) {
	data, _, err := namedfile.Read(path, maxSenders)
	if err != nil {
		return nil, err
	}
	all := Senders{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		words := strings.Fields(strings.ToLower(line))
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) == 1 {
			return nil, fmt.Errorf("%s:%d: user %q has no sender", path, n, words[0])
		}
		for _, sender := range words[1:] {
			if _, domain, ok := strings.Cut(sender, "@"); !ok || domain == "" {
				return nil, fmt.Errorf("%s:%d: %q is neither an address nor a domain with @ before it", path, n, sender)
			}
		}
		all[words[0]] = append(all[words[0]], words[1:]...)
	}
	return all, nil
}

// has reports whether the user may send as from.
func (s Senders) has(user string, from smtp.Path) bool {
	listed, known := s[strings.ToLower(user)]
	if !known || user == "" {
		listed = s["*"]
	}
	address := strings.ToLower(from.Address)
	for _, sender := range listed {
		if sender == address || sender[0] == '@' && strings.HasSuffix(address, sender) && strings.LastIndexByte(address, '@') == len(address)-len(sender) {
			return true
		}
	}
	return false
}
