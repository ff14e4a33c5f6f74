package scanner

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Clamd asks clamd(8) by its command INSTREAM.
type Clamd struct{ *Servers }

// NewClamd makes a scanner that asks servers at these addresses.
func NewClamd(addresses []string) Clamd { return Clamd{newServers(addresses)} }

// Name returns the name in results.
func (c Clamd) Name() string { return "clamd" }

// Scan asks for a message.
func (c Clamd) Scan(ctx context.Context, m *Message) (Result, error) {
	return c.each(ctx, func(ctx context.Context, address string) (Result, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return Result{}, err
		}
		defer conn.Close()
		// Clamd may answer before it has read all, if the message is too large for it; and then closes the connection.
		sent := instream(conn, m.trace(), m.Content)
		answer, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadString(0)
		if err != nil && (err != io.EOF || answer == "") {
			return Result{}, errors.Join(sent, err)
		}
		return clamdResult(strings.TrimRight(answer, "\x00\n"))
	})
}

// chunk is how many bytes are sent at once.
const chunk = 256 << 10

// instream sends contents in pieces, each behind its length; one of length 0 is the end.
func instream(w io.Writer, contents ...[]byte) error {
	pieces := net.Buffers{[]byte("zINSTREAM\x00")}
	for _, content := range contents {
		for len(content) > 0 {
			n := min(len(content), chunk)
			pieces = append(pieces, binary.BigEndian.AppendUint32(nil, uint32(n)), content[:n])
			content = content[n:]
		}
	}
	pieces = append(pieces, make([]byte, 4))
	_, err := pieces.WriteTo(w)
	return err
}

// clamdResult reads an answer: stream: OK, stream: NAME FOUND, or TEXT ERROR.
func clamdResult(answer string) (Result, error) {
	text, ok := strings.CutPrefix(answer, "stream: ")
	if name, found := strings.CutSuffix(text, " FOUND"); ok && found {
		return Result{Verdict: Virus, Name: name}, nil
	}
	if ok && text == "OK" {
		return Result{}, nil
	}
	return Result{}, fmt.Errorf("answered %q", printable(answer, 200))
}
