package stamp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/internal/safedir"
)

// POP-03, POP-04, POP-05.
func TestName(t *testing.T) {
	tests := []struct{ in, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"2001:DB8:0:0::1", "2001:db8::1"},
		{"fe80::1%eth0", "fe80::1"},
		{"fe80::1%../../etc", "fe80::1"},
		{"::", "::"},
		{"0.0.0.0", "0.0.0.0"},
		{"", ""}, {"../../etc/cron.d/x", ""}, {"192.0.2.1/../x", ""}, {".", ""}, {"%2e%2e", ""}, {"010.0.0.1", ""},
		{strings.Repeat("1", 300), ""},
	}
	for _, tt := range tests {
		addr, _ := netip.ParseAddr(tt.in)
		if got := Name(addr); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "::ffff:1.2.3.4", "fe80::1%a/b", "../x", "1.2.3.4/24"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if addr, ok := parseName(s); ok && Name(addr) != s {
			t.Errorf("%q is taken for a name", s)
		}
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		name := Name(addr)
		if strings.Trim(name, "0123456789abcdef:.") != "" || strings.Trim(name, ".") == "" || len(name) > 45 {
			t.Fatalf("%q gives the name %q", s, name)
		}
		if again, ok := parseName(name); !ok || Name(again) != name {
			t.Errorf("%q does not read back", name)
		}
	})
}

var (
	ctx    = context.Background()
	client = netip.MustParseAddr("192.0.2.7")
)

// newStore makes a store in a temporary directory with a clock that stands still.
func newStore(t *testing.T) (*Dir, *time.Time) {
	t.Helper()
	d, err := OpenDir(t.TempDir(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	d.Now = func() time.Time { return now }
	return d, &now
}

func fresh(t *testing.T, s Store, addr netip.Addr) bool {
	t.Helper()
	_, ok, err := s.Look(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestTouch(t *testing.T) {
	d, now := newStore(t)
	if fresh(t, d, client) {
		t.Error("fresh before it was made")
	}
	if err := d.Touch(ctx, netip.MustParseAddr("::ffff:192.0.2.7"), "bob smith\n/../..\x00%", "pop.example:110"); err != nil {
		t.Fatal(err)
	}
	if !fresh(t, d, client) {
		t.Error("not fresh after it was made")
	}
	path := filepath.Join(d.Path, "192.0.2.7")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d 192.0.2.7 bob%%20smith%%0A/../..%%00%%25 pop.example:110\n", now.Unix())
	if string(data) != want {
		t.Errorf("content %q, want %q", data, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
	if err := d.Touch(ctx, client, strings.Repeat("\xff", 10000), ""); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); len(data) > 1000 || len(strings.Fields(string(data))) != 4 {
		t.Errorf("content %.100q of %d bytes, want four short words", data, len(data))
	}
	if err := d.Touch(ctx, netip.Addr{}, "", ""); err == nil {
		t.Error("a stamp for no address was made")
	}
	if list, _ := os.ReadDir(d.Path); len(list) != 1 {
		t.Errorf("%d files, want 1", len(list))
	}
}

// sweep removes what is older than twice the maximum age and returns how many.
func sweep(ctx context.Context, d *Dir) (n int, err error) {
	err = d.Expire(ctx, 2*d.maxAge(), func(netip.Addr) { n++ })
	return n, err
}

// POP-11.
func TestFreshAge(t *testing.T) {
	tests := []struct {
		age    time.Duration
		fresh  bool
		future bool
	}{
		{0, true, false}, {599 * time.Second, true, false}, {600 * time.Second, true, false},
		{600*time.Second + time.Millisecond, false, false}, {24 * time.Hour, false, false},
		{-2 * time.Second, true, false}, {-5 * time.Second, true, false},
		{-6 * time.Second, false, true}, {-time.Hour, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.age.String(), func(t *testing.T) {
			d, now := newStore(t)
			*now = now.Truncate(time.Second)
			if err := d.Touch(ctx, client, "u", "s"); err != nil {
				t.Fatal(err)
			}
			*now = now.Add(tt.age)
			_, ok, err := d.Look(ctx, client)
			if ok != tt.fresh || errors.Is(err, ErrFuture) != tt.future {
				t.Errorf("fresh %v, %v; want %v, from the future %v", ok, err, tt.fresh, tt.future)
			}
		})
	}
}

// TestNotAStamp puts other kinds of files at the stamp's name.
// FS-05.
func TestNotAStamp(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(string) error{
		"link to a fresh file": func(p string) error { return os.Symlink(target, p) },
		"directory":            func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":                 func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"socket":               func(p string) error { return syscall.Mknod(p, syscall.S_IFSOCK|0o600, 0) },
	}
	if os.Geteuid() == 0 {
		kinds["device"] = func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o600, 1<<8|3) }
	}
	for name, make := range kinds {
		t.Run(name, func(t *testing.T) {
			d, _ := newStore(t)
			path := filepath.Join(d.Path, "192.0.2.7")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			if fresh(t, d, client) {
				t.Error("taken for a stamp")
			}
			if gone, err := d.Remove(ctx, client); gone || err != nil {
				t.Errorf("revoked: %v, %v", gone, err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnyContentAdmits(t *testing.T) {
	d, _ := newStore(t)
	if err := os.WriteFile(filepath.Join(d.Path, "192.0.2.7"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !fresh(t, d, client) {
		t.Error("an empty file does not admit")
	}
}

func TestOwner(t *testing.T) {
	s, err := OpenDir(t.TempDir(), 0, fmt.Sprint(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(ctx, client, "u", "s"); err != nil {
		t.Fatal(err)
	}
	if !fresh(t, s, client) {
		t.Error("own stamp does not count")
	}
	s.Owner++
	if fresh(t, s, client) {
		t.Error("stamp of another user counts")
	}
	if _, err := OpenDir(t.TempDir(), 0, "no-such-user-here"); err == nil {
		t.Error("unknown owner was accepted")
	}
	if _, err := OpenDir(t.TempDir(), -1, ""); err == nil {
		t.Error("negative age was accepted")
	}
}

// FS-06.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	s, err := OpenDir(dir, 0, "")
	if err != nil {
		t.Fatalf("missing directory: %v", err)
	}
	if _, ok, err := s.Look(ctx, client); ok || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: fresh %v, %v", ok, err)
	}
	if err := s.Touch(ctx, client, "", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: touch %v", err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(dir, 0, ""); !errors.Is(err, safedir.ErrInsecure) {
		t.Errorf("world-writable directory: %v", err)
	}
}

// TestDirectoryThatChanges: a directory that is kept open is left when another one is at its place, and when it is safe no
// more.
func TestDirectoryThatChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	s, err := OpenDir(dir, 0, "")
	touch := func() error { return s.Touch(ctx, client, "u", "s") }
	if err = errors.Join(err, os.Mkdir(dir, 0o700), touch(), touch()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700), touch()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Look(ctx, client); !ok || err != nil {
		t.Errorf("in the new directory: fresh %v, %v", ok, err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := touch(); !errors.Is(err, safedir.ErrInsecure) {
		t.Errorf("writable for everybody by now: %v", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), touch(), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	if err := touch(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestRemove(t *testing.T) {
	d, _ := newStore(t)
	if err := d.Touch(ctx, client, "u", "s"); err != nil {
		t.Fatal(err)
	}
	if gone, err := d.Remove(ctx, client); !gone || err != nil {
		t.Errorf("revoke: %v, %v", gone, err)
	}
	if gone, err := d.Remove(ctx, client); gone || err != nil {
		t.Errorf("remove what is not there: %v, %v", gone, err)
	}
	if fresh(t, d, client) {
		t.Error("fresh after it was removed")
	}
}

func TestSweep(t *testing.T) {
	d, now := newStore(t)
	touch := func(addr string) {
		t.Helper()
		if err := d.Touch(ctx, netip.MustParseAddr(addr), "u", "s"); err != nil {
			t.Fatal(err)
		}
	}
	start := *now
	touch("192.0.2.1")
	touch("2001:db8::1")
	*now = start.Add(5 * time.Minute)
	touch("192.0.2.2")
	var foreign []string
	for _, name := range []string{"README", "192.0.2.300", "::ffff:192.0.2.9", ".hidden"} {
		p := filepath.Join(d.Path, name)
		foreign = append(foreign, p)
		if err := errors.Join(os.WriteFile(p, nil, 0o600), os.Chtimes(p, time.Unix(0, 0), time.Unix(0, 0))); err != nil {
			t.Fatal(err)
		}
	}
	stale := filepath.Join(d.Path, tempPrefix+"X")
	if err := errors.Join(os.WriteFile(stale, nil, 0o600), os.Chtimes(stale, start, start)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{20 * time.Minute, 0}, {20*time.Minute + time.Second, 2}, {21 * time.Minute, 0}, {26 * time.Minute, 1}} {
		*now = start.Add(step.after)
		if n, err := sweep(ctx, d); n != step.want || err != nil {
			t.Errorf("after %v: removed %d, %v; want %d", step.after, n, err, step.want)
		}
	}
	for _, p := range foreign {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("a temporary file stays for ever")
	}
}

// TestPOP_12_LookupAmongManyStamps: to look one up costs the same however many there are, and a sweep takes many at a
// time.
func TestPOP_12_LookupAmongManyStamps(t *testing.T) {
	d, now := newStore(t)
	if err := d.Touch(ctx, client, "u", "s"); err != nil {
		t.Fatal(err)
	}
	lookup := func() float64 {
		return testing.AllocsPerRun(100, func() {
			if _, ok, err := d.Look(ctx, client); !ok || err != nil {
				t.Errorf("fresh %v, %v", ok, err)
			}
		})
	}
	alone := lookup()
	const many = sweepBatch + 100
	for addr := netip.MustParseAddr("10.0.0.0"); addr.Less(netip.AddrFrom4([4]byte{10, 0, many >> 8, many & 0xff})); addr = addr.Next() {
		if err := os.WriteFile(filepath.Join(d.Path, Name(addr)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if among := lookup(); among > alone+1 {
		t.Errorf("a lookup among %d stamps makes %v allocations, one alone %v: it reads the directory", many, among, alone)
	}
	*now = now.Add(24 * time.Hour)
	if n, err := sweep(ctx, d); n != many+1 || err != nil {
		t.Errorf("the sweep removed %d, %v; want %d", n, err, many+1)
	}
}

// TestSweepAgainstLogin lets logins renew a stamp while sweeps remove old ones: after a login it must be there.
func TestSweepAgainstLogin(t *testing.T) {
	dir := t.TempDir()
	writer, sweeper := &Dir{Path: dir, Owner: -1}, &Dir{Path: dir, Owner: -1}
	path := filepath.Join(dir, Name(client))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := sweeper.Expire(ctx, time.Minute, func(netip.Addr) {}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	old := time.Now().Add(-time.Hour)
	for range 300 {
		if err := os.Chtimes(path, old, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := writer.Touch(ctx, client, "u", "s"); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if !fresh(t, writer, client) {
		t.Error("the last login's stamp is gone")
	}
}

func TestSweepCancelled(t *testing.T) {
	d, _ := newStore(t)
	if err := d.Touch(ctx, client, "u", "s"); err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := sweep(stopped, d); !errors.Is(err, context.Canceled) {
		t.Errorf("sweep: %v, want %v", err, context.Canceled)
	}
}

func BenchmarkLook(b *testing.B) {
	d := &Dir{Path: b.TempDir(), Owner: -1}
	if err := d.Touch(ctx, client, "u", "s"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := d.Look(ctx, client); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
