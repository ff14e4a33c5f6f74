package scanner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Rspamd asks rspamd(8) at its worker for scans, by HTTP.
type Rspamd struct {
	*Servers
	client *http.Client
}

// NewRspamd makes a scanner that asks servers at these addresses.
func NewRspamd(addresses []string) Rspamd {
	transport := &http.Transport{
		// The address stands in the context: a path is none that a URL can have as its host.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			address, _ := ctx.Value(addressKey{}).(string)
			return dial(ctx, address)
		},
		DisableKeepAlives:      true, // connections are kept by host, which is the same for all
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
	return Rspamd{newServers(addresses), &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type addressKey struct{}

// Name returns the name in results.
func (r Rspamd) Name() string { return "rspamd" }

// Scan asks for a message.
func (r Rspamd) Scan(ctx context.Context, m *Message) (Result, error) {
	return r.each(ctx, func(ctx context.Context, address string) (Result, error) {
		ctx = context.WithValue(ctx, addressKey{}, address)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://rspamd/checkv2", bytes.NewReader(m.Content))
		if err != nil {
			return Result{}, err
		}
		rspamdFields(request.Header, m)
		response, err := r.client.Do(request)
		if err != nil {
			return Result{}, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
		switch {
		case err != nil:
			return Result{}, fmt.Errorf("read answer: %w", err)
		case response.StatusCode != http.StatusOK:
			return Result{}, fmt.Errorf("answered %q", printable(response.Status, 100))
		case len(body) > maxAnswer:
			return Result{}, errors.New("answered too much")
		}
		return rspamdResult(body)
	})
}

// maxRcpt bounds the recipients that are told: rspamd reads no request with more than 80 KiB of fields.
const maxRcpt = 60 << 10

// rspamdFields says whom a message is from and for.
func rspamdFields(h http.Header, m *Message) {
	set := func(name, value string) {
		if value != "" {
			h.Add(name, strings.Map(func(r rune) rune {
				if r < ' ' || r == 0x7f {
					return '?'
				}
				return r
			}, short(value)))
		}
	}
	set("Queue-Id", m.QueueID)
	set("IP", m.ClientIP)
	if !strings.HasPrefix(m.ClientName, "[") {
		set("Hostname", m.ClientName)
	}
	set("Helo", m.Helo)
	set("From", m.Sender)
	for _, recipient := range m.firstRecipients(maxRcpt, len("Rcpt: \r\n")) {
		set("Rcpt", recipient)
	}
	set("User", m.User)
	h.Set("Content-Type", "message/rfc822")
}

// rspamdAnswer is what of an answer matters.
type rspamdAnswer struct {
	Action   string                     `json:"action"`
	Score    *float64                   `json:"score"`
	Required float64                    `json:"required_score"`
	Skipped  bool                       `json:"is_skipped"`
	Subject  string                     `json:"subject"`
	Symbols  map[string]json.RawMessage `json:"symbols"`
	Messages map[string]any             `json:"messages"`
	Milter   struct {
		Add    map[string]json.RawMessage `json:"add_headers"`
		Remove map[string]int             `json:"remove_headers"`
	} `json:"milter"`
}

// rspamdResult reads an answer.
func rspamdResult(body []byte) (Result, error) {
	var a rspamdAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return Result{}, fmt.Errorf("answered with bad JSON: %w", err)
	}
	verdicts := map[string]Verdict{"no action": Clean, "greylist": Defer, "soft reject": Defer, "add header": Spam,
		"rewrite subject": Spam, "reject": Refuse, "discard": Discard, "quarantine": Spam}
	verdict, ok := verdicts[a.Action]
	if !ok || a.Score == nil {
		return Result{}, fmt.Errorf("answered with action %q", printable(a.Action, 50))
	}
	r := Result{Verdict: verdict, Name: a.Action, Scored: true, Score: *a.Score, Required: a.Required}
	if text, ok := a.Messages["smtp_message"].(string); ok {
		r.Reply = text
	}
	if a.Action == "rewrite subject" {
		r.Subject = a.Subject
	}
	for name := range a.Symbols {
		r.Symbols = append(r.Symbols, name)
	}
	slices.Sort(r.Symbols)
	for name, index := range a.Milter.Remove {
		r.Remove = append(r.Remove, Field{Name: name, Index: max(index, 0)})
	}
	for name, values := range a.Milter.Add {
		r.Add = append(r.Add, rspamdAdded(name, values)...)
	}
	byName := func(x, y Field) int { return cmp.Or(cmp.Compare(x.Index, y.Index), cmp.Compare(x.Name, y.Name)) }
	slices.SortStableFunc(r.Add, byName)
	slices.SortStableFunc(r.Remove, byName)
	return r, nil
}

// rspamdAdded reads the value or values of a field to be added: a text, an object with value and order, or a list.
func rspamdAdded(name string, raw json.RawMessage) []Field {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		var all []Field
		for _, one := range list {
			if len(all) < maxFields && !bytes.HasPrefix(bytes.TrimSpace(one), []byte("[")) {
				all = append(all, rspamdAdded(name, one)...)
			}
		}
		return all
	}
	var object struct {
		Value string `json:"value"`
		Order *int   `json:"order"`
	}
	if json.Unmarshal(raw, &object) == nil {
		index := -1
		if object.Order != nil && *object.Order >= 0 {
			index = *object.Order
		}
		return []Field{{name, object.Value, index}}
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []Field{{name, text, -1}}
	}
	return nil
}
