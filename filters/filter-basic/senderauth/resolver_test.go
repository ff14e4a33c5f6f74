package senderauth

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestWRK_26_LargeAnswers: name servers of a sender's own give answers as large as there can be, for ever new names. What
// is remembered of them has a bound in bytes, whatever is asked for.
func TestWRK_26_LargeAnswers(t *testing.T) {
	long := strings.Repeat("x", 60000)
	some := strings.Split(strings.Repeat("x,", 4000), ",")
	var mx []*net.MX
	var addresses []net.IPAddr
	for range 4000 {
		mx = append(mx, &net.MX{Host: long[:200]})
		addresses = append(addresses, net.IPAddr{IP: make(net.IP, 16)})
	}
	for name, value := range map[string]any{"one text": []string{long}, "many texts": some, "MX": mx, "addresses": addresses, "nothing": nil} {
		r := NewResolver("127.0.0.1:1")
		for i := range 2 * maxCached {
			r.remember(question{name, strconv.Itoa(i) + long[:200]}, value, nil)
		}
		size := 0
		for q, a := range r.cache {
			size += a.size
			if a.size < len(q.name)+sizeOf(value) {
				t.Fatalf("%s: counts %d bytes", name, a.size)
			}
		}
		if size != r.size || size > maxCachedSize || len(r.cache) == 0 || len(r.cache) > maxCached {
			t.Errorf("%s: %d answers of %d bytes, counted as %d", name, len(r.cache), size, r.size)
		}
	}
}

// TestOldAnswersGoFirst sees that old answers go first, and that one that is asked for again counts once.
func TestOldAnswersGoFirst(t *testing.T) {
	r := NewResolver("127.0.0.1:1")
	now := time.Unix(1e9, 0)
	r.now = func() time.Time { return now }
	text := []string{strings.Repeat("x", 10000)}
	fill := func(name string, n int) {
		for i := range n {
			r.remember(question{"TXT", name + strconv.Itoa(i)}, text, nil)
		}
	}
	for range 100 {
		fill("same", 50)
	}
	if len(r.cache) != 50 || r.size > 50*11000 {
		t.Fatalf("%d answers of %d bytes", len(r.cache), r.size)
	}
	now = now.Add(cached)
	fill("new", 380)
	if _, ok := r.recall(question{"TXT", "new0"}); !ok || len(r.cache) != 380 {
		t.Errorf("a new answer is forgotten before an old one: %d answers", len(r.cache))
	}
}

// TestAnswersThatAreNotTaken has answers that are too large, and names that cannot be asked for: none is remembered.
func TestAnswersThatAreNotTaken(t *testing.T) {
	zone := "many.test. 60 IN TXT \"v=spf1 -all\"\n"
	for i := range maxAnswerSize / 200 {
		zone += fmt.Sprintf("many.test. 60 IN TXT \"%d %s\"\n", i, strings.Repeat("x", 200))
	}
	s := startDNS(t, zone)
	r := NewResolver(s.address)
	texts, err := r.client().LookupTXT(t.Context(), "many.test")
	if len(texts) > 0 || !errors.Is(err, errTooLarge) {
		t.Errorf("%d texts, %v", len(texts), err)
	}
	if got := Check(t.Context(), r, message("192.0.2.7", "x", "a@many.test", mailOf("a@many.test"))); got.SPF != "permerror" {
		t.Error(got.String())
	}
	before := len(r.cache)
	if _, err := r.client().LookupTXT(t.Context(), strings.Repeat("x.", 200)+"test"); isTemporary(err) || err == nil {
		t.Errorf("a name of 404 bytes: %v", err)
	}
	if len(r.cache) != before || r.size > 4<<10 {
		t.Errorf("%d answers of %d bytes are remembered", len(r.cache), r.size)
	}
}
