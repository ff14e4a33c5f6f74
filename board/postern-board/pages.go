package main

import (
	"bytes"
	"embed"
	"errors"
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
	shared *made // what is the same for all who look, made once for them; nil: it is not
	fill   func(c *content, r *http.Request) (there bool)
}

// pages makes the pages.
type pages struct {
	board     *watch.Board
	templates map[string]*template.Template
}

// made is the main part of a page as it was a moment ago.
type made struct {
	mu   sync.Mutex
	at   time.Time
	main []byte
}

func newPages(b *watch.Board) *pages {
	p := &pages{board: b, templates: map[string]*template.Template{}}
	base := template.Must(template.New("").Funcs(functions).ParseFS(web, "web/base.html", "web/parts.html"))
	for _, name := range []string{"overview", "refusals", "find", "daemon"} {
		p.templates[name] = template.Must(template.Must(base.Clone()).ParseFS(web, "web/"+name+".html"))
	}
	return p
}

// routes are the pages and files there are.
func (srv *server) routes() http.Handler {
	p := srv.pages
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", srv.page(&view{"overview", time.Second, &made{}, p.overview}))
	mux.Handle("GET /refusals", srv.page(&view{"refusals", time.Second, &made{}, p.refusals}))
	mux.Handle("GET /daemon/{gateway}/{kind}", srv.page(&view{"daemon", time.Second, nil, p.daemon}))
	mux.Handle("GET /find", srv.page(&view{"find", 3 * time.Second, nil, p.find}))
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

// main renders what stands in <main>.
func (p *pages) main(v *view, r *http.Request) ([]byte, error) {
	m := v.shared
	if m == nil {
		return p.render(v, "main", r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) < v.every*9/10 {
		return m.main, nil
	}
	text, err := p.render(v, "main", r)
	m.main, m.at = text, time.Now()
	return text, err
}

// errNoPage says that there is no such page.
var errNoPage = errors.New("no such daemon is watched")

// render fills the part of a page that has that name.
func (p *pages) render(v *view, part string, r *http.Request) ([]byte, error) {
	c := &content{Path: r.URL.Path, Now: time.Now()}
	if !v.fill(c, r) {
		return nil, errNoPage
	}
	var b bytes.Buffer
	err := p.templates[v.name].ExecuteTemplate(&b, part, c)
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
	"state":   func(v *watch.View) string { return stateOf(v).class },
	"sign":    func(v *watch.View) string { return stateOf(v).sign },
	"stateText": func(v *watch.View) string {
		s := stateOf(v)
		if n := len(v.Problems); n > 1 {
			return fmt.Sprintf("%s (%d)", s.text, n)
		}
		return s.text
	},
}

// state is how a daemon stands, in a colour, a sign and words: no one of them alone.
type state struct{ class, sign, text string }

func stateOf(v *watch.View) state {
	switch {
	case !v.Reachable && len(v.Problems) == 0:
		return state{"warn", "…", "being looked for"}
	case !v.Reachable:
		return state{"bad", "✗", "cannot be watched"}
	case len(v.Problems) == 0:
		return state{"well", "✓", "well"}
	case v.Problems[0].Serious:
		return state{"bad", "✗", "in trouble"}
	}
	return state{"warn", "!", "something to know"}
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
