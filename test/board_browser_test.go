package test

import (
	"context"
	"errors"
	commandline "flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/chromedp/chromedp/remote"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

// screenshots makes the pictures of the documentation anew:
//
//	go test ./test -run TestBoardInABrowser -screenshots ../docs
var screenshots = commandline.String("screenshots", "", "`directory` to write pictures of the board to")

// browser is a Chromium that shows one page.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string // of the board

	mu       sync.Mutex
	complain []string // what the browser has complained of
}

// open starts Chromium.
func open(t *testing.T, base string) *browser {
	t.Helper()
	program := testenv.Path(t, "the board in a browser", "chromium")
	home, port := testenv.ShortDir(t), testenv.FreePort(t)
	args := []string{"--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1200,800",
		"--user-data-dir=" + home, fmt.Sprintf("--remote-debugging-port=%d", port)}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which root cannot have; it sees our own pages alone
	}
	cmd := exec.Command(program, append(args, "about:blank")...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	testenv.Start(t, cmd)
	devtools := fmt.Sprintf("http://127.0.0.1:%d", port)
	testenv.Eventually(t, "Chromium", func() bool {
		r, err := http.Get(devtools + "/json/version")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	ctx, stop := remote.NewAllocator(context.Background(), devtools)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b := &browser{t: t, ctx: ctx, base: base}
	if err := chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.note(e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			b.note(e.Entry.Text)
		}
	}); err != nil {
		t.Fatal(err)
	}
	call(b, log.Enable, cdp.Empty{})
	return b
}

func (b *browser) note(complaint string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complain = append(b.complain, complaint)
}

// do does something in the browser.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, testenv.Patience)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// call gives the browser a command.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, testenv.Patience)
	defer stop()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// scheme has pages shown as for who likes them light, or dark.
func (b *browser) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

func (b *browser) visit(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitReady("main"))
}

// value evaluates an expression.
func (b *browser) value(expression string) any {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, testenv.Patience)
	defer stop()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[any](expression))
	if err != nil && !errors.Is(err, chromedp.ErrJSUndefined) {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// eventually waits until an expression is true.
func (b *browser) eventually(what, expression string) {
	b.t.Helper()
	testenv.Eventually(b.t, what, func() bool { return b.value("Boolean("+expression+")") == true })
}

// board starts a board that watches daemons of the test.
func board(t *testing.T) (base string, proxy, pool *hub.Hub) {
	t.Helper()
	dir := testenv.ShortDir(t)
	daemon := func(name string) *hub.Hub {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
		h := hub.New(hub.Options{Letters: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", MaxListeners: 10})
		served := testenv.Go(t, "the hub, which is closed", func() error { return h.Serve(l) })
		t.Cleanup(func() {
			h.Close()
			served.Wait()
		})
		return h
	}
	proxy, pool = daemon("proxy"), daemon("pool")
	port := testenv.FreePort(t)
	testenv.Start(t, exec.Command(testenv.Binary(t, "postern-board"), "--config", os.DevNull, "--http", fmt.Sprintf("inet:%d", port),
		"--daemon", "gw1 smtp-proxy notify="+dir+"/proxy", "--daemon", "gw1 multiplexor notify="+dir+"/pool", "--user", "nobody"))
	base = fmt.Sprintf("http://localhost:%d", port)
	testenv.Eventually(t, "the board", func() bool {
		r, err := http.Get(base)
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return base, proxy, pool
}

func tell(h *hub.Hub, lines ...string) {
	for _, line := range lines {
		h.Publish(notify.Message{Letter: line[0], Text: strings.TrimPrefix(line[1:], " ")})
	}
}

// TestBoardInABrowser shows the board in Chromium: it keeps itself up to date, the focus stays, all can be done by the
// keyboard, a screen reader finds its way, colours can be told apart, and it works without JavaScript.
func TestBoardInABrowser(t *testing.T) {
	t.Parallel()
	if *screenshots != "" {
		takePictures(t)
	}
	base, proxy, pool := board(t)
	b := open(t, base)
	b.visit("/")
	b.eventually("both daemons", `document.querySelectorAll("#main td.well").length === 2`)
	b.value(`window.mine = true; document.querySelector("main th a").focus()`)

	t.Run("live", func(t *testing.T) {
		tell(proxy, "L 1", "C s1 192.0.2.1", "J s1 554", `C s2 <img/src=x/onerror=alert(1)>`, `J s2 <script>alert(1)</script>`)
		tell(pool, "S 0 StateChange Idle -> Busy", "S 0 scanning <b>q1</b>", "F 1")
		b.eventually("what is wrong", `document.querySelector("#summary").textContent.includes("1 of them in trouble")`)
		if b.value(`window.mine && document.activeElement.textContent`) != "gw1 smtp-proxy" {
			t.Error("the page was loaded again, or the focus was lost")
		}
		if live := b.value(`document.getElementById("live").textContent`); live != "Live" {
			t.Errorf("state %q", live)
		}
		tell(proxy, "L 0")
		b.eventually("that it is over", `document.querySelector("#summary").textContent.includes("nothing is wrong")`)
	})
	t.Run("keyboard", func(t *testing.T) {
		b.visit("/")
		b.do(chromedp.KeyEvent(kb.Tab))
		if b.value(`document.activeElement.textContent`) != "Skip to the content" {
			t.Error("the first stop is not the link to the content")
		}
		b.do(chromedp.KeyEvent(kb.Enter))
		b.eventually("the content", `document.activeElement.id === "main"`)
		b.value(`document.getElementById("q").focus()`)
		b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(" "))
		b.eventually("the pause", `document.activeElement.id === "pause" && document.activeElement.getAttribute("aria-pressed") === "true"`)
		tell(proxy, "L 1")
		b.do(chromedp.KeyEvent(" "))
		b.eventually("what came in the pause", `document.querySelector("#summary").textContent.includes("in trouble")`)
		tell(proxy, "L 0")
		b.value(`document.getElementById("q").focus()`)
		b.do(chromedp.KeyEvent("192.0.2.1"), chromedp.KeyEvent(kb.Enter))
		b.eventually("what was found", `document.querySelector("#summary")?.textContent === "2 lines."`)
	})
	t.Run("rows", func(t *testing.T) {
		b.visit("/refusals")
		b.value(`document.querySelector("tbody a[href='/find?q=s1']").focus()`)
		tell(proxy, "C s3 192.0.2.3", "J s3 550", "C s4 192.0.2.4", "T s4 451")
		b.eventually("new rows", `document.querySelector("tbody td:nth-child(3)").textContent === "s4"`)
		if b.value(`document.activeElement.textContent`) != "s1" {
			t.Error("the focus has gone to another row")
		}
	})
	t.Run("strangers", func(t *testing.T) {
		for _, path := range []string{"/refusals", "/daemon/gw1/smtp-proxy", "/daemon/gw1/multiplexor", "/find?q=s2", "/find?q=%3Cscript%3Ealert(1)%3C/script%3E"} {
			b.visit(path)
			b.eventually("the stream", `document.getElementById("live").textContent === "Live"`)
			if n := b.value(`document.scripts.length + 10 * document.querySelectorAll("main img, main script, main td b").length`); n != 1.0 {
				t.Errorf("%s: what a stranger sent is more than text: %v", path, n)
			}
		}
	})
	t.Run("screen reader", func(t *testing.T) {
		for _, path := range []string{"/", "/refusals", "/daemon/gw1/multiplexor", "/find?q=s1"} {
			b.visit(path)
			b.hasLandmarks(t, path)
		}
	})
	t.Run("colours", func(t *testing.T) {
		tell(proxy, "L 1", "R restart history")
		seen := map[any]bool{}
		for _, scheme := range []string{"light", "dark"} {
			b.scheme(scheme)
			for _, path := range []string{"/", "/refusals", "/daemon/gw1/smtp-proxy"} {
				b.visit(path)
				seen[b.value(`getComputedStyle(document.body).backgroundColor`)] = true
				if poor := b.value(poorContrast); poor != "" {
					t.Errorf("%s, %s: contrast below 4.5: %s", path, scheme, poor)
				}
			}
		}
		if len(seen) != 2 {
			t.Errorf("backgrounds %v, want one for light and one for dark", seen)
		}
	})
	t.Run("without JavaScript", func(t *testing.T) {
		call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		b.visit("/")
		text, err := chromedp.Run(b.ctx, chromedp.OuterHTML("html"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, "gw1 multiplexor") || !strings.Contains(text, `http-equiv="refresh"`) || strings.Contains(text, ">Live<") {
			t.Errorf("the page:\n%s", text)
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complain) > 0 {
		t.Errorf("the browser complains: %q", b.complain)
	}
}

// hasLandmarks looks at what a screen reader is told.
func (b *browser) hasLandmarks(t *testing.T, path string) {
	t.Helper()
	word := func(v *accessibility.Value) string {
		if v == nil {
			return ""
		}
		return strings.Trim(string(v.Value), `"`)
	}
	count := map[string]int{}
	for _, node := range call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes {
		if node.Ignored {
			continue
		}
		role := word(node.Role)
		count[role]++
		switch role {
		case "link", "button", "searchbox", "navigation", "heading", "columnheader", "region":
			if strings.TrimSpace(word(node.Name)) == "" {
				t.Errorf("%s: a %s without a name", path, role)
			}
		}
	}
	for role, least := range map[string]int{"banner": 1, "navigation": 1, "search": 1, "main": 1, "heading": 2, "searchbox": 1, "table": 1, "columnheader": 4} {
		if count[role] < least {
			t.Errorf("%s: %d of role %s, want %d; there are %v", path, count[role], role, least, count)
		}
	}
	if count["status"] > 1 || count["alert"] > 0 || count["main"] > 1 {
		t.Errorf("%s: too many that speak up: %v", path, count)
	}
}

// poorContrast names the first text whose colour is too near to that behind it. WCAG 2.2, 1.4.3
const poorContrast = `(() => {
	const rgb = (s) => s.match(/[\d.]+/g).map(Number);
	const part = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
	const light = (c) => .2126 * part(c[0]) + .7152 * part(c[1]) + .0722 * part(c[2]);
	const behind = (e) => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim()) || e.tagName === "SCRIPT" || e.tagName === "NOSCRIPT") continue;
		const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
		if ((Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5) return e.outerHTML.slice(0, 200);
	}
	return "";
})()`

// takePictures makes the pictures of the documentation.
func takePictures(t *testing.T) {
	base, proxy, pool := board(t)
	for i := range 12 {
		id := fmt.Sprintf("7f3a-%d", i)
		tell(proxy, fmt.Sprintf("C %s 192.0.2.%d", id, 10+i%5))
		switch i % 4 {
		case 0:
			tell(proxy, "J "+id+" 554")
		case 1:
			tell(proxy, "T "+id+" 451")
		default:
			tell(proxy, "A "+id+" q"+id+" 20480 2")
		}
		tell(proxy, fmt.Sprintf("D %s 192.0.2.%d 2", id, 10+i%5))
	}
	tell(pool, "N 3", "S 0 StateChange Stopped -> Idle", "S 1 StateChange Idle -> Busy", "S 1 scanning q7f3a-11", "F 3")
	tell(proxy, "F 9988", "L 1")
	b := open(t, base)
	b.do(chromedp.EmulateViewport(1000, 560))
	for name, scheme := range map[string]string{"overview": "light", "dark": "dark", "find": "light"} {
		b.scheme(scheme)
		path := "/"
		if name == "find" {
			path = "/find?q=192.0.2.10"
		}
		b.visit(path)
		b.eventually("the stream", `document.getElementById("live").textContent === "Live"`)
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*screenshots, "board-"+name+".png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
