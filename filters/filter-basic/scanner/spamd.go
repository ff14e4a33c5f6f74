package scanner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
)

// Spamd asks SpamAssassin's spamd(1).
type Spamd struct {
	*Servers
	headers bool
}

// NewSpamd makes a scanner that asks servers at these addresses: with headers for the fields that SpamAssassin adds,
// else for the names of the tests that a message meets.
func NewSpamd(addresses []string, headers bool) Spamd { return Spamd{newServers(addresses), headers} }

// Name returns the name in results.
func (s Spamd) Name() string { return "spamd" }

// Scan asks for a message.
func (s Spamd) Scan(ctx context.Context, m *Message) (Result, error) {
	return s.each(ctx, func(ctx context.Context, address string) (Result, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return Result{}, err
		}
		defer conn.Close()
		verb := "SYMBOLS"
		if s.headers {
			verb = "HEADERS"
		}
		trace := m.trace()
		request := net.Buffers{fmt.Appendf(nil, "%s SPAMC/1.5\r\nContent-length: %d\r\n\r\n", verb, len(trace)+len(m.Content)), trace, m.Content}
		_, sent := request.WriteTo(conn)
		r, err := spamdResult(bufio.NewReader(io.LimitReader(conn, maxAnswer)), s.headers)
		if err != nil {
			return Result{}, errors.Join(sent, err)
		}
		return r, nil
	})
}

// spamdResult reads an answer.
func spamdResult(r *bufio.Reader, headers bool) (Result, error) {
	tp := textproto.NewReader(r)
	line, err := tp.ReadLine()
	if err != nil {
		return Result{}, fmt.Errorf("read answer: %w", err)
	}
	words := strings.Fields(line)
	if len(words) < 3 || !strings.HasPrefix(words[0], "SPAMD/") || words[1] != "0" {
		return Result{}, fmt.Errorf("answered %q", printable(line, 200))
	}
	fields, err := tp.ReadMIMEHeader()
	if err != nil {
		return Result{}, fmt.Errorf("read answer: %w", err)
	}
	length, err := strconv.Atoi(fields.Get("Content-Length"))
	if err != nil || length < 0 || length > maxAnswer {
		return Result{}, fmt.Errorf("answered with a length of %q", printable(fields.Get("Content-Length"), 50))
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return Result{}, fmt.Errorf("read answer: %w", err)
	}
	result, err := spamdScore(fields.Get("Spam"))
	if err != nil {
		return Result{}, err
	}
	if headers {
		result.spamFields(string(body))
	} else {
		result.Symbols = splitSymbols(string(body))
	}
	return result, nil
}

// spamdScore reads the value of the field Spam: True ; 15.0 / 5.0.
func spamdScore(value string) (Result, error) {
	is, scores, ok := strings.Cut(value, ";")
	score, required, both := strings.Cut(scores, "/")
	r := Result{Scored: true}
	var err1, err2 error
	r.Score, err1 = strconv.ParseFloat(strings.TrimSpace(score), 64)
	r.Required, err2 = strconv.ParseFloat(strings.TrimSpace(required), 64)
	if !ok || !both || err1 != nil || err2 != nil {
		return r, fmt.Errorf("answered without a score: %q", printable(value, 100))
	}
	switch strings.ToLower(strings.TrimSpace(is)) {
	case "true", "yes":
		r.Verdict = Spam
	case "false", "no":
	default:
		return r, fmt.Errorf("answered without a verdict: %q", printable(value, 100))
	}
	return r, nil
}

// spamFields takes the fields that SpamAssassin has added. Those that came with the message go, also where it has added
// none of that name.
func (r *Result) spamFields(header string) {
	header = strings.ReplaceAll(header, "\r\n", "\n")
	seen := map[string]bool{}
	for _, name := range []string{"X-Spam-Flag", "X-Spam-Status", "X-Spam-Level", "X-Spam-Report", "X-Spam-Checker-Version"} {
		r.Remove = append(r.Remove, Field{Name: name})
		seen[strings.ToLower(name)] = true
	}
	for header != "" {
		end := 0
		for { // a field and its folds
			i := strings.IndexByte(header[end:], '\n')
			if i < 0 {
				end = len(header)
				break
			}
			end += i + 1
			if end == len(header) || header[end] != ' ' && header[end] != '\t' {
				break
			}
		}
		name, value, ok := strings.Cut(strings.TrimRight(header[:end], "\n"), ":")
		header = header[end:]
		if !ok || !strings.HasPrefix(strings.ToLower(name), "x-spam-") {
			continue
		}
		value = strings.TrimSpace(value)
		if !seen[strings.ToLower(name)] {
			r.Remove = append(r.Remove, Field{Name: name})
			seen[strings.ToLower(name)] = true
		}
		r.Add = append(r.Add, Field{Name: name, Value: value, Index: -1})
		if strings.EqualFold(name, "X-Spam-Status") {
			unfolded := strings.NewReplacer("\n", "", "\t", "").Replace(value)
			if _, tests, ok := strings.Cut(unfolded, "tests="); ok {
				tests, _, _ = strings.Cut(tests, " ")
				r.Symbols = splitSymbols(tests)
			}
		}
	}
}

// splitSymbols reads the names of tests: A,B,C, or none.
func splitSymbols(s string) []string {
	symbols := strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c <= ' ' })
	if len(symbols) == 1 && symbols[0] == "none" {
		return nil
	}
	return symbols
}
