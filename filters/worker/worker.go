// Package worker is for writing filter workers in Go: programs that the multiplexor starts and asks whether a client
// may connect, a sender may send, and what is to become of a message.
//
// Fill in the callbacks of a [Filter] that you need and hand it to [Main]:
//
//	func main() {
//		worker.Main(&worker.Filter{
//			Sender: func(r *worker.SenderRequest) worker.Verdict {
//				if r.Sender == "<spam@example.com>" {
//					return worker.Verdict{Action: worker.Reject, Text: "go away"}
//				}
//				return worker.Verdict{Action: worker.Continue}
//			},
//			Scan: func(m *worker.Message) error {
//				m.AddHeader("X-Seen", "yes")
//				return nil
//			},
//		})
//	}
//
// The requests, answers and files are those of mimedefang.pl, described in postern-filter(7). One request is handled
// at a time; the multiplexor starts as many workers as it wants.
package worker

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"postern/internal/percent"
)

// Filter is a worker's behaviour. Every callback may be nil: it then answers as mimedefang.pl does when the filter
// does not define the function, which for the four questions is to continue, and for Scan to deliver unchanged.
// A callback that panics gives an error answer, which makes the mail wait, and the worker goes on.
type Filter struct {
	Initialize func() error // before the first request; an error ends the worker
	Cleanup    func() int   // at the end of input; its value is the exit status

	Relay     func(*RelayRequest) Verdict
	Helo      func(*HeloRequest) Verdict
	Sender    func(*SenderRequest) Verdict
	Recipient func(*RecipientRequest) Verdict
	// Scan judges a message. An error is told to the multiplexor, and the client has to try again later.
	Scan func(*Message) error

	// Map looks key up in the map name.
	Map func(name, key string) (MapStatus, string)
	// Tick is called at regular times if the multiplexor is set up so; n is the kind of tick.
	Tick func(n int)
	// Unknown answers requests of your own. verb is in lower case. The first word of the answer should be "ok" or
	// "error:"; anything else becomes "error:".
	Unknown func(verb string, args []string) (code string, words []string)

	// ErrorLog gets what went wrong, a line each; nil is standard error, which the multiplexor logs.
	ErrorLog io.Writer
}

// MapStatus is the outcome of a map look-up.
type MapStatus string

// The outcomes that there are.
const (
	MapOK       MapStatus = "OK"       // found, with a value
	MapNotFound MapStatus = "NOTFOUND" // no such key
	MapTemp     MapStatus = "TEMP"     // cannot be told now
	MapTimeout  MapStatus = "TIMEOUT"
	MapPerm     MapStatus = "PERM" // cannot be told, and asking again does not help
)

// Sizes of the two ends of the pipe.
const (
	maxRequest = 256 << 10 // bytes of a request; only map requests are longer than 4 KiB
	maxAnswer  = 4095      // bytes of an answer without its LF; the multiplexor reads no more
)

// server is one run of a Filter.
type server struct {
	*Filter
	status io.Writer // nil without status lines
	depth  int
}

// Serve reads requests from in, a line each, and writes one line to out for each, until in ends. status, if it is not
// nil, gets a line whenever the worker begins or ends something. The error is nil at the end of in.
func (f *Filter) Serve(in io.Reader, out, status io.Writer) error {
	s := &server{Filter: f, status: status}
	r := bufio.NewReaderSize(in, 8<<10)
	for {
		line, tooLong, err := readLine(r)
		if err != nil && (err != io.EOF || line == "" && !tooLong) {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read request: %w", err)
		}
		answer := "error: Request too long"
		if !tooLong {
			answer = s.answer(line)
		}
		if _, err := io.WriteString(out, oneLine(answer)+"\n"); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
}

// readLine reads up to and without the next LF. A line longer than maxRequest is read to its end and told as tooLong.
func readLine(r *bufio.Reader) (line string, tooLong bool, err error) {
	var b []byte
	for {
		piece, err := r.ReadSlice('\n')
		if len(b)+len(piece) > maxRequest {
			tooLong, b = true, nil
		}
		if !tooLong {
			b = append(b, piece...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		return strings.TrimSuffix(string(b), "\n"), tooLong, err
	}
}

// oneLine makes sure that the answer is one line that the multiplexor takes whole: an escape is not cut in two.
func oneLine(s string) string {
	if i := strings.IndexAny(s, "\n\x00"); i >= 0 {
		s = s[:i]
	}
	if len(s) <= maxAnswer {
		return s
	}
	s = s[:maxAnswer]
	if i := strings.LastIndexByte(s, '%'); i > len(s)-3 {
		s = s[:i]
	}
	return s
}

// answer returns the answer to one request, without LF.
func (s *server) answer(line string) (answer string) {
	words := strings.Fields(line)
	for i, w := range words {
		words[i] = percent.Decode(w)
	}
	verb := ""
	if len(words) > 0 {
		verb, words = strings.ToLower(words[0]), words[1:]
	}
	defer func() {
		if p := recover(); p != nil {
			s.log("panic in answer to %q: %v\n%s", verb, p, debug.Stack())
			answer = "error: filter failed"
			if verb == "relayok" || verb == "helook" || verb == "senderok" || verb == "recipok" {
				answer = internalError.String()
			}
		}
	}()
	s.depth = 0
	switch verb {
	case "ping":
		return "PONG"
	case "relayok":
		return s.relayok(words)
	case "helook":
		return s.helook(words)
	case "senderok":
		return s.senderok(words)
	case "recipok":
		return s.recipok(words)
	case "scan":
		if err := s.scan(word(words, 1)); err != nil {
			s.log("scan: %v", err)
			return "error: " + plain(err.Error())
		}
		return "ok"
	case "map":
		return s.lookup(word(words, 0), word(words, 1))
	case "tick":
		return s.tick(word(words, 0))
	}
	return s.unknown(verb, words)
}

// word returns the word number i, "" if there are fewer.
func word(words []string, i int) string {
	if i < len(words) {
		return words[i]
	}
	return ""
}

// plain makes a text printable on one line. Error answers are not encoded.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func (s *server) lookup(name, key string) string {
	if s.Map == nil {
		return "PERM No filter_map function defined"
	}
	status, value := s.Map(name, key)
	switch status {
	case MapOK, MapNotFound, MapTemp, MapTimeout, MapPerm:
		return string(status) + " " + percent.Encode(value)
	}
	return "PERM Invalid code from filter_map: " + percent.Encode(string(status))
}

func (s *server) tick(number string) string {
	n, err := strconv.Atoi(number)
	if err != nil {
		n = 0
	}
	if s.Tick == nil {
		return fmt.Sprintf("error: tick %d: filter_tick undefined", n)
	}
	s.Tick(n)
	return fmt.Sprintf("tock %d", n)
}

func (s *server) unknown(verb string, args []string) string {
	if s.Unknown == nil {
		return "error: Unknown command"
	}
	code, words := s.Unknown(verb, args)
	if code != "ok" && code != "error:" {
		code = "error:"
	}
	return strings.TrimSuffix(code+" "+percent.Join(words...), " ")
}

func (s *server) log(format string, args ...any) {
	w := s.ErrorLog
	if w == nil {
		w = os.Stderr
	}
	// The log is the last resort; there is nowhere to tell that it failed.
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}

// begin and end write status lines: what a worker is busy with.
func (s *server) begin(text, id string) { s.depth++; s.show(">", text, id) }
func (s *server) end(text, id string)   { s.depth--; s.show("<", text, id) }

func (s *server) show(direction, text, id string) {
	if s.status == nil {
		return
	}
	line := fmt.Sprintf("%d: %s %s", s.depth, direction, text)
	if id != "" {
		line += " " + id
	}
	// A lost status line harms nobody.
	_, _ = io.WriteString(s.status, percent.Encode(line)+"\n")
}
