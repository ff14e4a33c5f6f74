package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-message/textproto"

	"postern/internal/testenv"
)

// view is what a parser makes of a message.
type view struct {
	Fields [][2]string `json:"fields"`
	Parts  [][3]string `json:"parts"` // type, file name, encoding; not all parsers look at them
}

// tidy makes the views of parsers alike that treat the case of names, white space and what is beyond ASCII differently.
func (v view) tidy() view {
	for i, f := range v.Fields {
		words := strings.FieldsFunc(f[1], func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' })
		value := strings.Map(func(r rune) rune {
			if r >= 0x80 {
				return -1
			}
			return r
		}, strings.Join(words, " "))
		v.Fields[i] = [2]string{strings.ToLower(f[0]), value}
	}
	return v
}

// lookers are parsers of headers, which look at many messages at a time.
var lookers = map[string]func(t *testing.T, files []string) []view{
	"Python":     func(t *testing.T, files []string) []view { return lookOutside(t, "python3", "view.py", files) },
	"MIME::Head": func(t *testing.T, files []string) []view { return lookOutside(t, "perl", "view.pl", files) },
	"go-message": func(t *testing.T, files []string) []view { return lookInside(t, files, goMessageView) },
	"net/mail":   func(t *testing.T, files []string) []view { return lookInside(t, files, netMailView) },
}

func lookOutside(t *testing.T, program, script string, files []string) []view {
	t.Helper()
	stdout, stderr, status := testenv.RunCmd(t, exec.Command(program, append([]string{filepath.Join("testdata", "views", script)}, files...)...))
	if status != 0 {
		t.Fatalf("%s: status %d: %s", script, status, stderr)
	}
	var views []view
	for line := range strings.Lines(stdout) {
		var v view
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		views = append(views, v.tidy())
	}
	if len(views) != len(files) {
		t.Fatalf("%s: %d views of %d messages: %s", script, len(views), len(files), stderr)
	}
	return views
}

func lookInside(t *testing.T, files []string, look func([]byte) (view, error)) []view {
	t.Helper()
	var views []view
	for _, name := range files {
		v, err := look([]byte(readFile(t, name)))
		if err != nil {
			t.Errorf("%s: %v in %q", name, err, clip(readFile(t, name)))
		}
		views = append(views, v.tidy())
	}
	return views
}

func goMessageView(text []byte) (v view, err error) {
	h, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(text)))
	if err != nil {
		return v, err
	}
	for f := h.Fields(); f.Next(); {
		v.Fields = append(v.Fields, [2]string{f.Key(), f.Value()})
	}
	return v, nil
}

// netMailView is in the order of names, as net/mail has no other.
func netMailView(text []byte) (v view, err error) {
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		return v, err
	}
	for name, values := range m.Header {
		for _, value := range values {
			v.Fields = append(v.Fields, [2]string{name, value})
		}
	}
	return v, nil
}

// oddHeaders are headers that not all parsers read alike, unless somebody makes them plain. Each is followed by a body of two
// parts, the second a program.
var oddHeaders = []string{
	"Content-Type : multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type\t:multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type \t : multipart/mixed;\r\n\tboundary=b\r\n\r\n",
	"Content-Type: text/plain\r\nContent-Disposition : attachment; filename=x.exe\r\nContent-Transfer-Encoding\t: base64\r\n\r\n",
	"Content-Type:\r\n multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type: multipart/mixed;\r\n \r\n boundary=b\r\n\r\n",
	"X: y\r\n \t\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type: text/plain\r\nContent-Type : multipart/mixed; boundary=b\r\n\r\n",
	"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n",
	"Content-Disposition: inline\r\nContent-Disposition: attachment; filename=x.exe\r\n\r\n",
	"rubbish\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: y\r\nrubbish\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X y: z\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	": y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	" folded\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	" X: y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	" \r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"\xef\xbb\xbfContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: y\r\n\xef\xbb\xbfContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X-\xc3\xa4: y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: \xe4\xff\r\nContent-Type: multipart/mixed; boundary=b; x=\"\xe4\"\r\n\r\n",
	"From somebody Sat Jan  1 00:00:00 2000\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	">From somebody\r\n>>From another\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: y\r\nFrom somebody\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"From : somebody@client.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type:\x0bmultipart/mixed; boundary=b\r\n\r\n",
	"Content-Type: multipart/mixed;\x0c boundary=b\x1f\r\n\r\n",
	"X: a\x0bb\x1b$B\x7f\r\nContent-Type\x0c: multipart/mixed; boundary=b\r\n\r\n",
	"X\x01: y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"Content-Type: multipart/mixed; boundary=" + strings.Repeat("b", 1200) + "\r\n\r\n",
	"Content-Type: multipart/mixed; x=" + strings.Repeat("x", 970) + "; boundary=b\r\n\r\n",
	"Content-Type: multipart/mixed; x=\"" + strings.Repeat("x ", 1500) + "\"; boundary=b\r\n\r\n",
	"Content-Type: multipart/mixed;" + strings.Repeat(" ", 3000) + "boundary=b\r\n\r\n",
	"Content-Type:" + strings.Repeat("\t", 3000) + "multipart/mixed;\r\n" + strings.Repeat(" ", 3000) + "boundary=b\r\n\r\n",
	"X: " + strings.Repeat("\u00e4", 3000) + "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	strings.Repeat("X", 300) + ": y\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X:\r\nY:\r\n\t\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: y\nContent-Type : multipart/mixed; boundary=b\n\n",
	"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
	"X: y\r\n\t\r\n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
}

// randomHeader puts pieces together that make trouble.
func randomHeader(r *rand.Rand) string {
	pieces := []string{"Content-Type", "content-disposition", "X", "X-Y", ":", ":", ":", " ", "\t", "\r\n", "\r\n", "\r\n", "\r\n ", "\r\n\t", "\n", "multipart/mixed", ";",
		"boundary=b", "attachment; filename=x.exe", "\x0b", "\x0c", "\x01", "\xef\xbb\xbf", "\xe4", "From a", ">", "base64", "\"", "(", ")", strings.Repeat("x", 600), strings.Repeat(" ", 700)}
	var b strings.Builder
	for range 3 + r.IntN(30) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String() + "\r\n\r\n"
}

// TestHeaderIsReadAlike sends headers that can be read in more than one way through a proxy with a filter to a Postfix. All
// parsers must read the same fields in what the filter saw, and each must see in what has arrived what it saw there.
func TestHeaderIsReadAlike(t *testing.T) {
	t.Parallel()
	testenv.Path(t, "parsers of headers", "python3")
	testenv.Path(t, "parsers of headers", "mimedefang.pl") // and with it MIME::Parser
	server := testenv.StartPostfix(t, "header_address_token_limit = 10240", "")
	var mu sync.Mutex
	saw, headers := map[string]string{}, map[string]string{}
	answer := scanWith(t, "F\n")
	m := startMultiplexor(t, func(words []string) string {
		if words[0] == "scan" {
			text, err := os.ReadFile(filepath.Join(words[2], "INPUTMSG"))
			list, err2 := os.ReadFile(filepath.Join(words[2], "HEADERS"))
			if err != nil || err2 != nil {
				return "error: cannot read\n"
			}
			mu.Lock()
			defer mu.Unlock()
			_, marker, _ := strings.Cut(string(text), "marker ")
			marker, _, _ = strings.Cut(marker, ".")
			saw[marker], headers[marker] = string(text), string(list)
		}
		return answer(words)
	})
	p := startProxy(t, "--multiplexor", m.spec, "--spool", m.spool, "--upstream", "smtp://"+server.Address())

	all := slices.Clone(oddHeaders)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		all = append(all, randomHeader(r))
	}
	c := greeted(t, p.addr)
	for i, header := range all {
		c.cmd("MAIL FROM:<from@client.example> BODY=8BITMIME", "250")
		c.cmd("RCPT TO:<one@example.net>", "250")
		c.cmd("DATA", "354")
		c.send(header + "--b\r\n\r\nmarker " + strconv.Itoa(i) + ".\r\n--b\r\nContent-Type: application/octet-stream; name=x.exe\r\n\r\nMZ\r\n--b--\r\n.\r\n")
		c.expect("250")
	}
	c.cmd("QUIT", "221")

	delivered := map[string]string{}
	testenv.Eventually(t, "all messages to be delivered", func() bool {
		found, err := filepath.Glob(filepath.Join(server.Maildir, "new", "*"))
		must(t, err)
		return len(found) == len(all)
	})
	for _, message := range server.Delivered() {
		_, marker, _ := strings.Cut(message, "marker ")
		marker, _, _ = strings.Cut(marker, ".")
		delivered[marker] = message
	}

	dir := t.TempDir()
	var before, after []string
	for i := range all {
		marker := strconv.Itoa(i)
		arrived, ok := delivered[marker]
		if !ok {
			t.Fatalf("header %q was delivered as nothing that is known", clip(all[i]))
		}
		before, after = append(before, filepath.Join(dir, marker+".saw")), append(after, filepath.Join(dir, marker+".arrived"))
		mu.Lock()
		writeFile(t, before[i], saw[marker])
		mu.Unlock()
		writeFile(t, after[i], arrived)
	}
	views := map[string][]view{}
	for name, look := range lookers {
		views[name] = look(t, before)
		for i, v := range look(t, after) {
			if name != "net/mail" && !containsFields(v.Fields, views[name][i].Fields) || !slices.Equal(v.Parts, views[name][i].Parts) {
				t.Errorf("%s: header %q\nfilter's  %q\n  %q\narrived %q\n  %q", name, clip(all[i]), views[name][i].Fields, views[name][i].Parts, v.Fields, v.Parts)
			}
		}
	}
	for i, header := range all {
		want := views["go-message"][i].Fields
		for name, v := range views {
			got := v[i].Fields
			if name == "net/mail" {
				got, want := sortedFields(got), sortedFields(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s: header %q\n got %q\nwant %q", name, clip(header), got, want)
				}
			} else if !slices.Equal(got, want) {
				t.Errorf("%s: header %q\n got %q\nwant %q", name, clip(header), got, want)
			}
		}
		var list [][2]string
		for line := range strings.Lines(headers[strconv.Itoa(i)]) {
			field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			list = append(list, [2]string{field, value})
		}
		if got := (view{Fields: list}).tidy().Fields; !slices.Equal(got, want) {
			t.Errorf("HEADERS: header %q\n got %q\nwant %q", clip(header), got, want)
		}
	}
}

// containsFields reports whether part stands in fields in one piece.
func containsFields(fields, part [][2]string) bool {
	for i := 0; i+len(part) <= len(fields); i++ {
		if slices.Equal(fields[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

func sortedFields(fields [][2]string) [][2]string {
	return slices.SortedFunc(slices.Values(fields), func(a, b [2]string) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
}
