package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// exchange is a SASL exchange that is passed through. RFC 5034.
type exchange struct {
	*session
	mechanism string
	responses int // of the client
}

const (
	maxAuthCommand = 255 // bytes of AUTH with its initial response, RFC 5034, 4
	maxRounds      = 10
)

// run leads the exchange to its end. What is longer than servers take as initial response follows their first
// challenge, which is as good.
func (x *exchange) run(ctx context.Context, b *backend, initial string) (answer, error) {
	line := "AUTH " + x.mechanism
	if initial != "" {
		x.note(initial)
		if whole := line + " " + initial; len(whole)+len("\r\n") <= maxAuthCommand {
			line, initial = whole, ""
		}
	}
	canceled := false
	a, err := b.askSASL(line)
	if err == nil && a.more && initial != "" {
		a, err = b.askSASL(initial)
	}
	for rounds := 0; err == nil && a.more; rounds++ {
		if rounds == maxRounds {
			return answer{}, fmt.Errorf("endless SASL exchange: %w", errProtocol)
		}
		var response string
		if response, err = x.challenge(ctx, a.text); err != nil {
			break
		}
		canceled = canceled || response == cancel
		a, err = b.askSASL(response)
	}
	a.canceled = canceled || x.responses == 0
	return a, err
}

// cancel is the response that ends an exchange. RFC 5034, 4.
const cancel = "*"

// challenge passes a challenge on to the client and returns its response.
func (x *exchange) challenge(ctx context.Context, text string) (string, error) {
	x.say("+ %s", text)
	if !x.flush() {
		return "", errClient
	}
	if err := x.conn.SetReadDeadline(x.deadline); err != nil {
		return "", errors.Join(err, errClient)
	}
	if ctx.Err() != nil {
		return "", errors.Join(ctx.Err(), errClient)
	}
	response, err := readLine(x.reader(), maxAuth) // not logged
	switch {
	case errors.Is(err, errLongLine):
		return cancel, nil
	case err != nil:
		return "", errors.Join(err, errClient)
	case response != "" && !validBase64(response):
		return cancel, nil
	}
	x.note(response)
	return response, nil
}

// note takes the name of the user out of a response of the client. Some mechanisms do not show it; then it
// stays "-".
func (x *exchange) note(response string) {
	round := x.responses
	x.responses++
	decoded, err := base64.StdEncoding.DecodeString(response)
	if err != nil || len(decoded) == 0 {
		return
	}
	name, data := "", string(decoded)
	switch x.mechanism {
	case "PLAIN": // RFC 4616
		if parts := strings.Split(data, "\x00"); len(parts) == 3 {
			name = parts[1]
		}
	case "LOGIN":
		if round == 0 {
			name = data
		}
	case "CRAM-MD5": // RFC 2195; the name may have spaces
		if i := strings.LastIndexByte(data, ' '); i > 0 {
			name = data[:i]
		}
	case "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512": // RFC 5802, 5.1
		if _, rest, ok := strings.Cut(data, ",n="); ok && round == 0 {
			name, _, _ = strings.Cut(rest, ",")
		}
	case "XOAUTH2":
		if rest, ok := strings.CutPrefix(data, "user="); ok {
			name, _, _ = strings.Cut(rest, "\x01")
		}
	case "OAUTHBEARER": // RFC 7628, 3.1
		if _, rest, ok := strings.Cut(data, "a="); ok {
			name, _, _ = strings.Cut(rest, ",")
		}
	}
	// A name that USER takes to another server is of nobody there: the login is at the usual one.
	if _, server := x.conf.choose(name); name != "" && server == nil {
		x.user = name
	}
}

func validBase64(s string) bool {
	return s == "=" || len(s) <= maxAuth && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == ""
}
