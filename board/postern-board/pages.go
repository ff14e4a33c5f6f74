package main

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"math"
	"mime"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"postern/board/postern-board/watch"
	"postern/internal/printable"
)

//go:embed web
var web embed.FS

// Most lines that a page shows.
const (
	linesFound  = 500
	linesListed = 100
	linesOfOne  = 30
	maxQuery    = 128 // bytes
)

// content is what a template is filled with.
type content struct {
	Title, Path, Query, Summary string
	Now                         time.Time
	Views, Troubled             []*watch.View
	View                        *watch.View
	Lines                       []watch.Line
	Reasons                     []watch.Reason
}

// view is one kind of page.
type view struct {
	name   string // of its template
	every  time.Duration
	shared bool // it is the same for all who look, and made once for them
	fill   func(c *content, r *http.Request) (there bool)
}

// pages makes the pages.
type pages struct {
	board     *watch.Board
	templates map[string]*template.Template
	made      map[string]*made // of shared pages, by name
}

// made is the main part of a page as it was a moment ago.
type made struct {
	mu   sync.Mutex
	at   time.Time
	main []byte
}

func newPages(b *watch.Board) *pages {
	p := &pages{board: b, templates: map[string]*template.Template{}, made: map[string]*made{}}
	base := template.Must(template.New("").Funcs(functions).ParseFS(web, "web/base.html", "web/parts.html"))
	for _, name := range []string{"overview", "refusals", "find", "daemon"} {
		p.templates[name] = template.Must(template.Must(base.Clone()).ParseFS(web, "web/"+name+".html"))
		p.made[name] = &made{}
	}
	return p
}

// routes are the pages and files there are.
func (srv *server) routes() http.Handler {
	p := srv.pages
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", srv.page(&view{"overview", time.Second, true, p.overview}))
	mux.Handle("GET /refusals", srv.page(&view{"refusals", time.Second, true, p.refusals}))
	mux.Handle("GET /daemon/{gateway}/{kind}", srv.page(&view{"daemon", time.Second, false, p.daemon}))
	mux.Handle("GET /find", srv.page(&view{"find", 3 * time.Second, false, p.find}))
	for _, name := range []string{"board.js", "board.css", "icon.svg"} {
		mux.Handle("GET /"+name, file(name))
	}
	return mux
}

// file serves a file of ours.
func file(name string) http.Handler {
	data, err := web.ReadFile("web/" + name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	})
}

func (p *pages) overview(c *content, _ *http.Request) bool {
	c.Title = "Overview"
	c.Views = p.board.Views()
	serious := 0
	for _, v := range c.Views {
		if len(v.Problems) > 0 {
			c.Troubled = append(c.Troubled, v)
			if v.Problems[0].Serious {
				serious++
			}
		}
	}
	c.Summary = fmt.Sprintf("%d daemons, nothing is wrong.", len(c.Views))
	if len(c.Troubled) > 0 {
		c.Summary = fmt.Sprintf("%d daemons, %d of them in trouble, %d with something to know.", len(c.Views), serious, len(c.Troubled)-serious)
	}
	c.Reasons = watch.Reasons(c.Views)
	return true
}

func (p *pages) refusals(c *content, _ *http.Request) bool {
	c.Title = "Refusals"
	c.Lines = p.board.Refusals(linesListed)
	c.Reasons = watch.Reasons(p.board.Views())
	return true
}

func (p *pages) daemon(c *content, r *http.Request) bool {
	gateway, kind := r.PathValue("gateway"), r.PathValue("kind")
	c.View = p.board.View(gateway, kind)
	if c.View == nil {
		return false
	}
	c.Title = gateway + " " + kind
	c.Lines = p.board.Newest(gateway, kind, linesOfOne)
	return true
}

func (p *pages) find(c *content, r *http.Request) bool {
	c.Title, c.Query = "Find", r.FormValue("q")
	if len(c.Query) > maxQuery || !utf8.ValidString(c.Query) {
		c.Query = ""
	}
	if c.Query == "" {
		return true
	}
	c.Lines = p.board.Find(c.Query, linesFound)
	c.Summary = fmt.Sprintf("%d lines.", len(c.Lines))
	switch len(c.Lines) {
	case 0:
		c.Summary = "No line about it is there, or not any more."
	case 1:
		c.Summary = "1 line."
	case linesFound:
		c.Summary = fmt.Sprintf("The last %d lines; there are more.", linesFound)
	}
	return true
}

// fill makes what a page shows; ok is false if there is no such page.
func (p *pages) fill(v *view, r *http.Request) (c *content, ok bool) {
	c = &content{Path: r.URL.Path, Now: time.Now()}
	return c, v.fill(c, r)
}

// main renders what stands in <main>.
func (p *pages) main(v *view, r *http.Request) ([]byte, error) {
	if !v.shared {
		return p.render(v, r)
	}
	m := p.made[v.name]
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) < v.every*9/10 {
		return m.main, nil
	}
	text, err := p.render(v, r)
	m.main, m.at = text, time.Now()
	return text, err
}

func (p *pages) render(v *view, r *http.Request) ([]byte, error) {
	c, ok := p.fill(v, r)
	if !ok {
		return nil, errNoPage
	}
	var b bytes.Buffer
	err := p.templates[v.name].ExecuteTemplate(&b, "main", c)
	return b.Bytes(), err
}

// functions are those of the templates.
var functions = template.FuncMap{
	"iso":       func(t time.Time) string { return t.Format(time.RFC3339) },
	"clock":     clock,
	"printable": printable.Text,
	"count": func(n int) string {
		if n < 0 {
			return ""
		}
		return strconv.Itoa(n)
	},
	"number":  number,
	"rate":    rate,
	"minute":  func(perSecond float64) float64 { return 60 * perSecond },
	"meaning": func(gate string) string { return meanings[gate] },
	"state":   func(v *watch.View) string { return states[stateOf(v)].class },
	"sign":    func(v *watch.View) string { return states[stateOf(v)].sign },
	"stateText": func(v *watch.View) string {
		s := states[stateOf(v)]
		if n := len(v.Problems); n > 1 {
			return fmt.Sprintf("%s (%d)", s.text, n)
		}
		return s.text
	},
}

// states are what a daemon can be, in words, a sign and a colour: no one of them alone.
var states = []struct{ class, sign, text string }{
	{"well", "✓", "well"},
	{"warn", "…", "being looked for"},
	{"warn", "!", "something to know"},
	{"bad", "✗", "in trouble"},
	{"bad", "✗", "cannot be watched"},
}

func stateOf(v *watch.View) int {
	switch {
	case !v.Reachable && len(v.Problems) == 0:
		return 1
	case !v.Reachable:
		return 4
	case len(v.Problems) == 0:
		return 0
	case v.Problems[0].Serious:
		return 3
	}
	return 2
}

// clock is a time as people read it; the day is left out while it goes on.
func clock(t time.Time) string {
	t = t.Local()
	if time.Since(t).Abs() < 12*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// number is a figure with as many digits as say something.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}

// rate is how often something happens.
func rate(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}
