package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/internal/notify"
	"postern/internal/notify/hub"
	"postern/internal/testenv"
)

var errTimeout = errors.New("time is up")

func kinds(t *testing.T, c *Conn, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	var s []string
	for range n {
		e, err := c.Next(ctx)
		if err != nil {
			return strings.Join(append(s, err.Error()), "|")
		}
		s = append(s, e.Kind.String()+" "+e.Line())
	}
	return strings.Join(s, "|")
}

func connect(t *testing.T, src Source, in Interest) *Conn {
	t.Helper()
	c, err := Connect(context.Background(), src, in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientExtended(t *testing.T) {
	h, src := serve(t)
	h.Seed(notify.Message{Letter: 'F', Text: "2"})
	c := connect(t, src, Interest{Letters: "YZF"})
	if got := kinds(t, c, 4); got != "up |state F 2|state Y|live *LIVE 0" {
		t.Errorf("got %q", got)
	}
	h.Publish(notify.Message{Letter: 'F', Text: "0"}, notify.Message{Letter: 'Z'})
	if got := kinds(t, c, 2); got != "event F 0|event Z" {
		t.Errorf("got %q", got)
	}
}

// serve starts a hub on a UNIX socket.
func serve(t *testing.T) (*hub.Hub, Source) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(testenv.ShortDir(t), "n"))
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Options{})
	served := testenv.Go(t, "the hub", func() error { return h.Serve(l) })
	t.Cleanup(func() {
		h.Close()
		served.Wait()
	})
	return h, Source{Name: "hub", Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
}

// original plays an original multiplexor: it reads nothing but the letters,
// and says what the script has, after the interest line.
func original(t *testing.T, script string) Source {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "*OK\n")
		c.Read(make([]byte, 256))
		io.WriteString(c, script)
	}()
	return Source{Name: "old", Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
}

func TestClientFallsBack(t *testing.T) {
	c := connect(t, original(t, "F 3\nS 0 > rebuild\noop qid\nZ\n"), Interest{Letters: "*"})
	if got := kinds(t, c, 5); got != "up |event F 3|event S 0 > rebuild|other oop qid|event Z" {
		t.Errorf("got %q", got)
	}
	start := time.Now()
	c = connect(t, original(t, ""), Interest{Letters: "*"})
	e, err := c.Next(context.Background())
	if err != nil || e.Kind != Up || e.Extended || time.Since(start) > 10*time.Second {
		t.Errorf("a silent original: %+v, %v after %v", e, err, time.Since(start))
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, errTimeout)
	defer cancel()
	if _, err := c.Next(ctx); !errors.Is(err, errTimeout) {
		t.Errorf("time is up: %v", err)
	}
}

// TestSilentServer connects to one that accepts and says nothing.
// EVT-05.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	dials := 0
	src := Source{Name: "silent", Wait: 20 * time.Millisecond, Dial: func(context.Context) (net.Conn, error) {
		if dials++; dials == 4 {
			cancel(errTimeout)
		}
		return testenv.Connect("unix", l.Addr().String()) // however long it takes
	}}
	f := &Follower{Source: src, Interest: Interest{Letters: "*"}, Once: true}
	err = f.Follow(context.Background(), func(Event) error { return nil })
	if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "no greeting within 20ms") {
		t.Errorf("%v", err)
	}
	f.Once = false
	downs := 0
	err = f.Follow(ctx, func(e Event) error { downs++; return nil })
	if !errors.Is(err, errTimeout) || downs != 1 {
		t.Errorf("%v, lost %d times in %d attempts", err, downs, dials)
	}
}

func TestFollowerMissesNothing(t *testing.T) {
	h, src := serve(t)
	var last net.Conn
	remembered := func(ctx context.Context) (conn net.Conn, err error) {
		last, err = src.Dial(ctx)
		return last, err
	}
	f := &Follower{Source: Source{Name: "hub", Dial: remembered}, Interest: Interest{Letters: "YZ"}}
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	done := errors.New("done")
	y, z := notify.Message{Letter: 'Y'}, notify.Message{Letter: 'Z'}
	var got []string
	err := f.Follow(ctx, func(e Event) error {
		got = append(got, e.Kind.String()+" "+e.Line())
		switch len(got) {
		case 2: // live
			h.Publish(z)
		case 3:
			last.Close()
			h.Publish(y, z, y) // while it is away
		case 10:
			return done
		}
		return nil
	})
	want := "up |live *LIVE 0|event Z|down |up |event Y|event Z|event Y|state Y|live *LIVE 4"
	if err != done || strings.Join(got, "|") != want {
		t.Errorf("%v\ngot  %q\nwant %q", err, strings.Join(got, "|"), want)
	}
}

func TestParseSource(t *testing.T) {
	for in, want := range map[string]string{
		"/run/postern/multiplexor-notify.sock": "multiplexor",
		"/run/x.sock":                          "x",
		"unix:/run/a=b":                        "a=b",
		"mx=/run/postern/n":                    "mx",
		"inet:4567":                            "inet:4567",
		"far=tcp:192.0.2.1:4567":               "far",
		"/run/a=b/n":                           "n",
	} {
		if src, err := ParseSource(in); err != nil || src.Name != want {
			t.Errorf("%q: %q, %v; want %q", in, src.Name, err, want)
		}
	}
	for _, in := range []string{"", "inet:", "tcp:x", "mx="} {
		if _, err := ParseSource(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
