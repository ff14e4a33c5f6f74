package filter

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/internal/mxproto"
	"postern/internal/workdir"
)

// ErrUnreachable is wrapped by the error of [Filter.Rescan] if the multiplexor does not answer at all.
var ErrUnreachable = errors.New("multiplexor is not there")

// Rescan has a copy of a message scanned once more. It returns the files of the copy's working directory, which is
// removed by then, and how long the scan took; Close must follow on the files. Only Multiplexor, Spool and Timeout of the
// filter have a meaning for it.
func (f *Filter) Rescan(ctx context.Context, qid string, from *workdir.Snapshot) (after *workdir.Snapshot, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if _, err := f.Multiplexor.Ask(ctx, mxproto.VerbFree); err != nil { // copies for one that is down would fill the spool
		return nil, 0, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	dir, err := f.Spool.Copy(qid, from, deadline)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = dir.Remove() }() // what cannot be removed is swept, as after any other scan
	began := time.Now()
	answer, err := f.Multiplexor.Ask(ctx, mxproto.Scan{QID: qid, Dir: dir.Path()}.Line())
	took = time.Since(began)
	if err != nil {
		dir.Abandon()
		return nil, took, err
	}
	if err := mxproto.ParseScan(answer); err != nil {
		return nil, took, err
	}
	after, err = dir.Snapshot()
	return after, took, err
}

// Wishes are what a filter wants of a message, in a form that can be compared with what another one wants.
type Wishes map[string]string // by what they are about

// wishNone stands for a wish that only the other filter has.
const wishNone = "nothing"

// WishesOf returns what a filter wants that has left these files. What differs from one scan of a message to the next is
// left out: the name of the working directory, boundaries, white space, the order of recipients and of fields with
// different names, and fields whose names are to be ignored, whatever their case.
func WishesOf(files *workdir.Snapshot, ignored []string) (Wishes, error) {
	r, err := files.Results()
	if err != nil {
		return nil, err
	}
	w := Wishes{"verdict": r.Verdict.String()}
	if r.Code != "" {
		w["verdict"] = normal(strings.Join([]string{r.Verdict.String(), r.Code, r.DSN, r.Text}, " "))
	}
	if r.Hold != "" {
		w["held"] = normal(r.Hold)
	}
	var rcpts []string
	for _, c := range r.Changes {
		switch c.Letter {
		case workdir.ResultAddRecipient:
			rcpts = append(rcpts, "+"+strings.ToLower(c.Value))
		case workdir.ResultDeleteRecipient:
			rcpts = append(rcpts, "-"+strings.ToLower(c.Value))
		case workdir.ResultChangeSender:
			w["sender"] = c.Value
		case workdir.ResultContentType:
			w.add("field content-type", normal(c.Value))
		default:
			if !slices.ContainsFunc(ignored, func(name string) bool { return strings.EqualFold(name, c.Name) }) {
				w.add("field "+strings.ToLower(c.Name), fmt.Sprintf("%c%d %s", c.Letter, c.Index, normal(c.Value)))
			}
		}
	}
	if rcpts != nil {
		slices.Sort(rcpts)
		w["recipients"] = strings.Join(slices.Compact(rcpts), " ")
	}
	if r.NewBody {
		if w["body"], err = bodySum(files.NewBody()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w Wishes) add(about, wish string) {
	if before := w[about]; before != "" {
		wish = before + "; " + wish
	}
	w[about] = wish
}

// Differences says what one filter wants and the other does not, each as "what: ours, not theirs".
func (w Wishes) Differences(other Wishes) (all []string) {
	about := maps.Clone(w)
	maps.Copy(about, other)
	for _, what := range slices.Sorted(maps.Keys(about)) {
		ours, theirs := w.of(what), other.of(what)
		if ours != theirs {
			all = append(all, fmt.Sprintf("%s: %.200s, not %.200s", what, ours, theirs))
		}
	}
	return all
}

func (w Wishes) of(what string) string {
	if wish, ok := w[what]; ok {
		return wish
	}
	return wishNone
}

// String is the verdict, and that there is more.
func (w Wishes) String() string {
	if n := len(w) - 1; n > 0 {
		return fmt.Sprintf("%s, %d changes", w["verdict"], n)
	}
	return w["verdict"]
}

var (
	dirName  = regexp.MustCompile(`mdefang-[A-Za-z0-9._-]+`)
	boundary = regexp.MustCompile(`(?i)boundary="?[^";\s]*"?`)
)

// normal takes out of a text what differs from one scan to the next.
func normal(text string) string {
	text = boundary.ReplaceAllString(dirName.ReplaceAllString(text, "mdefang-"), "boundary=")
	return strings.Join(strings.Fields(text), " ")
}

// bodySum returns a text that is the same for bodies that differ in boundaries alone.
func bodySum(body io.Reader) (string, error) {
	if body == nil {
		return "none", nil
	}
	sum := sha256.New()
	lines := bufio.NewReaderSize(body, 16<<10)
	for begins := true; ; {
		line, err := lines.ReadSlice('\n')
		switch {
		case begins && bytes.HasPrefix(line, []byte("--")):
			_, _ = sum.Write([]byte("--\n"))
		case begins && bytes.Contains(line, []byte("oundary=")):
			_, _ = sum.Write(boundary.ReplaceAll(line, nil))
		default:
			_, _ = sum.Write(line)
		}
		begins = err == nil
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Sprintf("new (%x)", sum.Sum(nil)[:6]), nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return "", fmt.Errorf("read new body: %w", err)
		}
	}
}
