package workdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"postern/internal/percent"
)

// ErrResults is wrapped by the errors for a RESULTS file that is missing, incomplete or broken. It is never a reason
// to refuse a message for good: a full disk or a killed worker looks like this.
var ErrResults = errors.New("no valid RESULTS from the filter")

// Verdict is what a filter decided about a message as a whole.
type Verdict int

// The verdicts; RESULTS has a letter for each.
const (
	Deliver  Verdict = iota // with the changes
	Reject                  // refuse for good
	TempFail                // refuse for now
	Discard                 // accept and throw away
)

// String names the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Deliver:
		return "deliver"
	case Reject:
		return "reject"
	case TempFail:
		return "tempfail"
	case Discard:
		return "discard"
	}
	return "verdict " + strconv.Itoa(int(v))
}

// Results is a complete and valid RESULTS file.
type Results struct {
	Verdict Verdict
	Code    string // three digits, beginning with 5 (Reject) or 4 (TempFail); else ""
	DSN     string // 5.x.y or 4.x.y, likewise
	Text    string // for the client: no control bytes but LF between lines; may have bytes above 0x7F
	Changes []Change
	NewBody bool   // the body is to be replaced by NEWBODY
	Hold    string // reason to hold the message in a queue; "" = none. Counts also when it is refused
	Skipped []string
}

// Change is one change to the message, in the order the filter asked for it.
//
// Fields have Name, Value (not to delete one) and Index: where to insert one, 0 = top, or which occurrence to change or
// delete. The other changes have a Value only.
//
// Names are valid field names. Values of fields have LF only where white space follows it (a fold), no CR, no other
// control bytes but TAB; an empty Value with I means to delete. Recipients and senders are as the worker wrote them,
// without control bytes: the caller must check that they are addresses.
type Change struct {
	Letter      byte // ResultAddField ... ResultChangeSender
	Name, Value string
	Index       int
}

// Results reads RESULTS. The error wraps [ErrResults] if the worker is to blame.
func (d *Dir) Results() (*Results, error) {
	f, err := d.dir.Open(fileResults, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("read RESULTS of %q: %w: %w", d.name, err, ErrResults)
	}
	defer f.Close()
	// One byte more than allowed tells too much from enough, also when the file grows while it is read.
	data, err := io.ReadAll(io.LimitReader(f, maxResults+1))
	if err != nil {
		return nil, classify(fmt.Errorf("read RESULTS of %q: %w", d.name, err))
	}
	r, err := ParseResults(data)
	if err != nil {
		return nil, fmt.Errorf("read RESULTS of %q: %w", d.name, err)
	}
	return r, nil
}

// ParseResults reads the text of a RESULTS file. The file counts up to its F line, which must be there, or, when the
// message is refused or discarded, up to the end of that line.
//
// Kept from the original: unknown letters and empty lines are skipped, as are changes with too few words; an index
// that is no number is 0 for N and 1 for I and J; bad codes are replaced by the defaults; when there is a B, T or D
// before the F, the first of them counts and all changes are void. Stricter than the original: bad percent escapes,
// NUL and overlong lines make the whole file invalid, what stands behind F is not looked at, and invalid field names
// are skipped.
func ParseResults(data []byte) (*Results, error) {
	if len(data) > maxResults {
		return nil, fmt.Errorf("more than %d bytes: %w", maxResults, ErrResults)
	}
	r := &Results{}
	refused := false
	for n := 1; len(data) > 0; n++ {
		text, rest, ended := bytes.Cut(data, []byte{'\n'})
		data = rest
		if len(text) > maxResultsLine {
			return nil, fmt.Errorf("line %d is longer than %d bytes: %w", n, maxResultsLine, ErrResults)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("line %d has a NUL: %w", n, ErrResults)
		}
		if len(text) == 0 {
			r.skip(n, "empty line")
			continue
		}
		if text[0] == ResultEnd {
			return r.finish(refused), nil
		}
		if err := r.line(n, text[0], string(text[1:]), ended, &refused); err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", n, err, ErrResults)
		}
	}
	if refused {
		return r.finish(refused), nil
	}
	return nil, fmt.Errorf("does not end with F: %w", ErrResults)
}

// finish drops the changes of a message that is not delivered.
func (r *Results) finish(refused bool) *Results {
	if refused {
		r.Changes, r.NewBody = nil, false
	}
	return r
}

func (r *Results) skip(n int, why string) {
	r.Skipped = append(r.Skipped, fmt.Sprintf("line %d: %s", n, why))
}

// line takes the line of the given letter and raw arguments.
func (r *Results) line(n int, letter byte, args string, ended bool, refused *bool) error {
	switch letter {
	case ResultReject, ResultTempFail, ResultDiscard:
		if !ended {
			return errors.New("verdict is cut off")
		}
		if !*refused {
			*refused = true
			return r.verdict(letter, args)
		}
		return nil
	case ResultNewBody:
		r.NewBody = true
		return nil
	case ResultHold:
		reason, err := percent.DecodeStrict(args)
		if reason = plain(reason); reason == "" {
			reason = "held by the filter"
		}
		r.Hold = reason
		return err
	case ResultAddField, ResultInsertField, ResultChangeField, ResultDeleteField, ResultContentType,
		ResultAddRecipient, ResultDeleteRecipient, ResultChangeSender:
		return r.change(n, letter, args)
	}
	r.skip(n, fmt.Sprintf("unknown letter %q", letter))
	return nil
}

// verdict takes the words of B, T or D.
func (r *Results) verdict(letter byte, args string) error {
	digit := byte('5')
	switch letter {
	case ResultDiscard:
		r.Verdict = Discard
		return nil
	case ResultReject:
		r.Verdict, r.Code, r.DSN, r.Text = Reject, "554", "5.7.1", "Forbidden for policy reasons"
	case ResultTempFail:
		r.Verdict, r.Code, r.DSN, r.Text = TempFail, "451", "4.3.0", "Please try again later"
		digit = '4'
	}
	words, err := split(args, 3)
	if err != nil {
		return err
	}
	for len(words) < 3 {
		words = append(words, "")
	}
	if validCode(words[0], digit) {
		r.Code = words[0]
	}
	if validDSN(words[1], digit) {
		r.DSN = words[1]
	}
	if text := replyText(words[2]); text != "" {
		r.Text = text
	}
	return nil
}

// words says how many words the letters of changes have.
func words(letter byte) int {
	switch letter {
	case ResultInsertField, ResultChangeField:
		return 3
	case ResultAddField, ResultDeleteField:
		return 2
	}
	return 1
}

// change takes a line that asks for a change.
func (r *Results) change(n int, letter byte, args string) error {
	want := words(letter)
	w, err := split(args, want)
	if err != nil {
		return err
	}
	if len(w) < want {
		r.skip(n, fmt.Sprintf("%c needs %d words", letter, want))
		return nil
	}
	c := Change{Letter: letter}
	switch letter {
	case ResultAddField, ResultInsertField, ResultChangeField, ResultDeleteField:
		c.Name = w[0]
		if !validName(c.Name) {
			r.skip(n, fmt.Sprintf("%c with the invalid field name %.40q", letter, c.Name))
			return nil
		}
		if letter != ResultDeleteField {
			c.Value = fold(w[want-1])
		}
		c.Index = index(letter, w)
	case ResultContentType:
		c.Value = fold(w[0])
	default:
		c.Value = plain(w[0])
		if c.Value == "" {
			r.skip(n, fmt.Sprintf("%c without an address", letter))
			return nil
		}
	}
	r.Changes = append(r.Changes, c)
	return nil
}

// index reads the second word of N, I and J as atoi(3) does: "2x" is 2.
func index(letter byte, words []string) int {
	least := 1
	switch {
	case letter == ResultInsertField:
		least = 0
	case letter == ResultAddField:
		return 0
	}
	s, end := words[1], 0
	for end < len(s) && end < 9 && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return least
	}
	return max(n, least)
}

// split cuts raw into at most n words at single white-space characters, and decodes each; the last takes the rest.
func split(raw string, n int) ([]string, error) {
	var out []string
	for len(out) < n-1 {
		i := strings.IndexAny(raw, " \t\v\f\r")
		if i < 0 {
			break
		}
		out = append(out, raw[:i])
		raw = raw[i+1:]
	}
	out = append(out, raw)
	for i, w := range out {
		var err error
		if out[i], err = percent.DecodeStrict(w); err != nil {
			return nil, err
		}
	}
	return out, nil
}
