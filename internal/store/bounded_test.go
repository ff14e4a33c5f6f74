package store

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postern/internal/testenv"
)

// played is a connection from which a text is read.
type played struct {
	net.Conn
	r io.Reader
}

func (c played) Read(p []byte) (int, error) { return c.r.Read(p) }

// readAll reads as much of a text as a bounded connection lets through.
func readAll(text string) (n int, err error) {
	var r io.Reader = strings.NewReader(text)
	if len(text) < 64<<10 {
		r = iotest.OneByteReader(r)
	}
	c := &boundedConn{Conn: played{r: r}}
	for piece := make([]byte, 4096); n < len(text); {
		m, err := c.Read(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// TestBoundedReplies: what stores say passes, however it is cut into pieces, and what would need more memory than there is
// does not.
func TestBoundedReplies(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"+OK\r\n", ":-1\r\n", "$-1\r\n", "*-1\r\n", "$0\r\n\r\n", "*0\r\n", "$12\r\n$9999999999\r\n:1\r\n", "_\r\n", "#t\r\n", ",1.5e300\r\n",
		"(3492890328409238509324850943850943825024385\r\n", "-ERR 99999999999999999999\r\n", "*2\r\n$3\r\nfoo\r\n*2\r\n:1\r\n%1\r\n+a\r\n~0\r\n",
		">3\r\n+message\r\n$4\r\nnews\r\n$5\r\nhello\r\n", "|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n", "*100000\r\n", "=7\r\ntxt:a\r\n\r\n", "!3\r\nERR\r\n",
		strings.Repeat("*1\r\n", maxReplyDepth) + ":1\r\n", strings.Repeat(strings.Repeat("*1\r\n", maxReplyDepth)+":1\r\n", 3),
		strings.Repeat("$4\r\n\r\n\r\n\r\n", 1000), strings.Repeat("*2\r\n:1\r\n*0\r\n", 1000),
	} {
		if n, err := readAll(text); err != nil || n != len(text) {
			t.Errorf("%.60q: %d of %d bytes, %v", text, n, len(text), err)
		}
	}
	for _, text := range []string{
		"$1099511627776\r\n", "$9223372036854775807\r\n", "$99999999999999999999999999\r\n", "*1000000000\r\n", "*100001\r\n", "%50001\r\n", ">1000000\r\n",
		"|1000000\r\n", "~100001\r\n", "!99999999\r\n", "=99999999\r\n", "$16777217\r\n", strings.Repeat("*1\r\n", maxReplyDepth+1),
		strings.Repeat("*2\r\n:1\r\n", maxReplyDepth+1), "*9\r\n" + strings.Repeat("$4000000\r\n"+strings.Repeat("x", 4000000)+"\r\n", 5),
		"+" + strings.Repeat("x", maxReply+1), strings.Repeat("1", maxReply+1), "*2\r\n+a\n$1099511627776\n",
	} {
		if n, err := readAll(text); !errors.Is(err, errReply) {
			t.Errorf("%.60q: %d of %d bytes, %v; want %v", text, n, len(text), err, errReply)
		}
	}
}

// TestRES_19_StoreThatSaysTooMuch: a store names lengths that no memory has room for. Requests fail, and no gateway stops.
func TestRES_19_StoreThatSaysTooMuch(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"$1099511627776\r\n", "*9223372036854775807\r\n", strings.Repeat("*1\r\n", 1<<20)} {
		c := open(t, Settings{StoreURL: testenv.StartFakeStore(t, answer), StoreTimeout: time.Minute}, quietLog())
		if _, err := c.Run(ctx, echo, []string{c.Key("k")}, "x"); !errors.Is(err, errReply) {
			t.Errorf("%.40q: %v, want %v", answer, err, errReply)
		}
	}
}
