package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"postern/internal/notify"
	"postern/internal/notify/listener"
	"postern/internal/printable"
)

// A printer turns events into lines.
type printer struct {
	format   string // raw, line, json, or "" for the template
	template *template.Template
	named    bool // lines of format raw begin with the source
	color    bool
	free     map[string]int // last known, by source
}

func newPrinter(format string, named, color bool) (*printer, error) {
	p := &printer{format: format, named: named, color: color, free: map[string]int{}}
	if !strings.Contains(format, "{{") && (format == "raw" || format == "line" || format == "json") {
		return p, nil
	}
	p.format = ""
	var err error
	if p.template, err = template.New("event").Parse(format); err != nil {
		return nil, err
	}
	// A field that does not exist is found out before there are events.
	return p, p.template.Execute(io.Discard, fields{})
}

// learn takes in what an event says about free workers.
func (p *printer) learn(e *listener.Event) {
	if e.Kind != listener.Happened && e.Kind != listener.State {
		return
	}
	if n := e.Free(); n >= 0 {
		p.free[e.Source] = n
	} else if e.Letter == notify.LetterSome && p.free[e.Source] == 0 {
		delete(p.free, e.Source) // some, who knows how many
	}
}

func (p *printer) freeOf(source string) int {
	if n, known := p.free[source]; known {
		return n
	}
	return -1
}

func (p *printer) line(e *listener.Event) ([]byte, error) {
	switch p.format {
	case "raw":
		return p.raw(e), nil
	case "line":
		return p.words(e), nil
	case "json":
		return p.json(e)
	}
	var b bytes.Buffer
	err := p.template.Execute(&b, p.fields(e))
	b.WriteByte('\n')
	return b.Bytes(), err
}

// raw is the message byte for byte, whatever is in it.
func (p *printer) raw(e *listener.Event) []byte {
	var b []byte
	if p.named {
		b = append(append(b, e.Source...), ' ')
	}
	switch e.Kind {
	case listener.Up, listener.Down:
		b = append(append(b, '*'), strings.ToUpper(e.Kind.String())...)
	default:
		b = append(b, e.Line()...)
	}
	return append(b, '\n')
}

// fields are what a template may use. The texts are printable; Raw is not.
type fields struct {
	Kind, Source string
	Seq          uint64
	Time         time.Time
	Type, Text   string
	Event, Words string
	Free, Worker int
	Lost         uint64
	Error, Raw   string
}

func (p *printer) fields(e *listener.Event) fields {
	f := fields{
		Kind: e.Kind.String(), Source: e.Source, Seq: e.Seq, Time: e.Time,
		Text: printable.Text(e.Text), Event: printable.Text(e.Line()), Words: words(e),
		Free: p.freeOf(e.Source), Worker: e.Worker(), Lost: e.Lost, Raw: e.Line(),
	}
	if e.Letter != 0 {
		f.Type = string(e.Letter)
	}
	if e.Err != nil {
		f.Error = printable.Text(e.Err.Error())
	}
	return f
}

// words is the event in English.
func words(e *listener.Event) string {
	switch e.Kind {
	case listener.Lost:
		return fmt.Sprintf("%d messages are missing here", e.Lost)
	case listener.Up:
		return "connected"
	case listener.Down:
		return "lost: " + printable.Text(e.Err.Error())
	case listener.Other:
		return "not understood: " + printable.Text(e.Text)
	}
	return e.Words()
}

// Colours of the line format: the time, the source, and letters that matter.
const (
	faint = "\x1b[2m"
	blue  = "\x1b[36m"
	plain = "\x1b[0m"
)

var letterColor = map[byte]string{
	notify.LetterNone: "\x1b[31m", notify.LetterSome: "\x1b[32m",
	notify.LetterBusyTimeout: "\x1b[33m", notify.LetterDied: "\x1b[33m",
	notify.LetterDeferred: "\x1b[33m", notify.LetterRejected: "\x1b[31m", notify.LetterGate: "\x1b[33m",
}

// words prints time, source, letter and what it means. A state that a snapshot
// shows has an equals sign before the letter.
func (p *printer) words(e *listener.Event) []byte {
	letter := " -"
	if e.Letter != 0 {
		letter = " " + string(e.Letter)
	}
	if e.Kind == listener.State {
		letter = "=" + letter[1:]
	}
	at := e.Time.Format("2006-01-02 15:04:05.000000")
	source := printable.Text(e.Source)
	if p.color {
		at, source = faint+at+plain, blue+source+plain
		if c := letterColor[e.Letter]; c != "" {
			letter = c + letter + plain
		}
	}
	return fmt.Appendf(nil, "%s %s %s %s\n", at, source, letter, words(e))
}

type object struct {
	Kind    string  `json:"kind"`
	Source  string  `json:"source"`
	Seq     uint64  `json:"seq,omitempty"`
	Time    string  `json:"time"`
	Type    string  `json:"type,omitempty"`
	Text    *string `json:"text,omitempty"`
	TextHex string  `json:"text_hex,omitempty"`
	Free    *int    `json:"free,omitempty"`
	Worker  *int    `json:"worker,omitempty"`
	Lost    uint64  `json:"lost,omitempty"`
	Run     uint64  `json:"run,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// json prints one object a line. Whatever the text is, the line is valid JSON in
// ASCII and printable characters; a text that is not UTF-8 stands in text_hex as
// well.
func (p *printer) json(e *listener.Event) ([]byte, error) {
	o := object{Kind: e.Kind.String(), Source: e.Source, Seq: e.Seq, Lost: e.Lost, Run: e.Run,
		Time: e.Time.UTC().Format("2006-01-02T15:04:05.000000Z")}
	switch e.Kind {
	case listener.Happened, listener.State:
		o.Type = string(e.Letter)
		o.Text = &e.Text
		if n := p.freeOf(e.Source); n >= 0 {
			o.Free = &n
		}
		if n := e.Worker(); n >= 0 {
			o.Worker = &n
		}
	case listener.Other:
		o.Text = &e.Text
	case listener.Down:
		o.Error = e.Err.Error()
	}
	if !utf8.ValidString(e.Text) {
		o.TextHex = hex.EncodeToString([]byte(e.Text))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(o); err != nil {
		return nil, err
	}
	return printable.JSON(b.Bytes()), nil
}
