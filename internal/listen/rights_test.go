package listen

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"postern/internal/testenv"
)

func TestRights(t *testing.T) {
	requests := []Request{{Name: "smtp"}, {Name: "notify", Mode: 0o770}, {Name: "metrics"}, {Name: "status", Mode: 0o777}}
	tests := []struct {
		name        string
		mode, group []string
		want        string // mode and group of each
		err         string
	}{
		{"none", nil, nil, "0 0770 0 0777", ""},
		{"a group for all", nil, []string{"7"}, "0770.7 0770.7 0770.7 0777.7", ""},
		{"a group for two", nil, []string{"7 notify metrics"}, "0 0770.7 0770.7 0777", ""},
		{"both", []string{"0660", "600 metrics"}, []string{"7", " 8  status "}, "0660.7 0660.7 0600.7 0660.8", ""},
		{"the mode counts", []string{"600 notify"}, []string{"7 notify"}, "0 0600.7 0 0777", ""},
		{"no mode", []string{"rw notify"}, nil, "", `socket-mode: "rw" is no mode`},
		{"not octal", []string{"0680"}, nil, "", `"0680" is no mode`},
		{"more than rights", []string{"4755"}, nil, "", `"4755" is no mode`},
		{"no rights", []string{"0"}, nil, "", `"0" is no mode`},
		{"negative", []string{"-1"}, nil, "", `"-1" is no mode`},
		{"nothing", []string{""}, nil, "", `"" is no mode`},
		{"no such listener", nil, []string{"7 notfy"}, "", `socket-group "7 notfy": the listeners are smtp, notify, metrics, status`},
		{"one of them", []string{"600 notify requests"}, nil, "", `the listeners are`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Rights{tt.mode, tt.group}.On(requests)
			errs := map[string]error{"CheckSpecs": CheckSpecs(got), "Check": Check(got)}
			_, errs["Open"] = Open(got, quiet())
			for what, err := range errs {
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s says %v, want %q", what, err, tt.err)
				}
			}
			if tt.err != "" {
				return
			}
			want := strings.Fields(tt.want)
			for i, r := range got {
				text, group, _ := strings.Cut(want[i], ".")
				if mode := parseMode(text); r.Mode != mode || r.Group != group {
					t.Errorf("%s: mode %#o group %q, want %s", r.Name, r.Mode, r.Group, want[i])
				}
			}
		})
	}
}

func parseMode(text string) (mode fs.FileMode) {
	for _, digit := range text {
		mode = mode<<3 | fs.FileMode(digit-'0')
	}
	return mode
}

func TestUnknownGroup(t *testing.T) {
	r := Request{Name: "notify", Specs: []string{filepath.Join(testenv.ShortDir(t), "s")}, Group: "no-such-group"}
	if err := Check([]Request{r}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check says %v: a group may come later", err)
	}
	if _, err := open(t, r); err == nil || !strings.Contains(err.Error(), `"no-such-group"`) {
		t.Errorf("the start says %v", err)
	}
}

// The group that a socket is made with never has rights which only the other one is to have.
func TestGroup(t *testing.T) {
	testenv.NeedRoot(t)
	path := filepath.Join(testenv.ShortDir(t), "s")
	for _, owner := range []*Owner{nil, {UID: 65534, GID: 65533}} {
		var done atomic.Bool
		var watcher sync.WaitGroup
		watcher.Go(func() {
			for !done.Load() {
				if st, err := lstat(path); err == nil && st.Gid != 65532 && st.Mode&0o077 != 0 {
					t.Errorf("socket seen with group %d and mode %o", st.Gid, st.Mode)
					return
				}
			}
		})
		for range 100 {
			set, err := Open([]Request{{Name: "a", Specs: []string{path}, Mode: 0o660, Owner: owner, Group: "65532"}}, quiet())
			if err != nil {
				t.Error(err)
				break
			}
			uid := uint32(0)
			if owner != nil {
				uid = uint32(owner.UID)
			}
			if st, err := lstat(path); err != nil || st.Uid != uid || st.Gid != 65532 || st.Mode&0o7777 != 0o660 {
				t.Errorf("owner %d.%d mode %o, %v; want %d.65532 0660", st.Uid, st.Gid, st.Mode, err, uid)
			}
			set.Close()
		}
		done.Store(true)
		watcher.Wait()
	}
}
