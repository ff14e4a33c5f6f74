package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/internal/testenv"
)

func TestParseURL(t *testing.T) {
	tests := map[string]Options{
		"redis://localhost":                                         {Network: "tcp", Addrs: []string{"localhost:6379"}, Prefix: defaultPrefix},
		"redis://ann@[2001:db8::1]:7000/3?prefix=mx:":               {Network: "tcp", Addrs: []string{"[2001:db8::1]:7000"}, DB: 3, Prefix: "mx:", User: "ann"},
		"unix:///run/redis.sock?db=2":                               {Network: "unix", Addrs: []string{"/run/redis.sock"}, DB: 2, Prefix: defaultPrefix},
		"redis://a,?prefix=":                                        {Network: "tcp", Addrs: []string{"a,:6379"}},
		"redis://s1/1?sentinel=mail&addr=s2&addr=s3:26380":          {Network: "tcp", Addrs: []string{"s1:26379", "s2:26379", "s3:26380"}, DB: 1, Prefix: defaultPrefix, Master: "mail"},
		"redis://n1:7001/?cluster=yes&addr=n2:7002&prefix=postern/": {Network: "tcp", Addrs: []string{"n1:7001", "n2:7002"}, Prefix: "postern/", Cluster: true},
	}
	for text, want := range tests {
		got, err := parseURL(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if diff := cmp.Diff(&want, got, cmpopts.IgnoreFields(Options{}, "TLS")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if o, err := parseURL("rediss://h"); err != nil || o.TLS == nil {
		t.Errorf("rediss: TLS %v, %v", o.TLS, err)
	}
	for _, text := range []string{
		"", "localhost:6379", "http://h", "redis://", "redis:///0", "redis:h", "redis://:pw@h", "redis://u:secret@h/0", "redis://h/x", "redis://h/-1", "redis://h/99999999",
		"redis://h/0?db=x", "redis://h?prefx=a", "redis://h?prefix={a}", "redis://h?prefix=a%20b", "redis://h?addr=i", "redis://h?cluster=maybe", "redis://h/1?cluster=yes",
		"redis://h?cluster=yes&sentinel=m", "unix://run/x", "unix://", "unix:///x?cluster=yes", "redis://h#x", "redis://h?sentinel=m&addr=x/y", "redis://h?sentinel=m&addr=",
		"redis://h:port/0", "redis://u:se%zzcret@h",
	} {
		o, err := parseURL(text)
		if err == nil {
			t.Errorf("%s: %+v, want an error", text, o)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "se%zzcret") {
			t.Errorf("%s: the error shows the password: %v", text, err)
		}
	}
}

// TestPOP_80_SecretsOfTheStore: the password is read from a file that strangers cannot read, and is in no text.
func TestPOP_80_SecretsOfTheStore(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := map[string][2]string{":pass:word": {"", "pass:word"}, "ann:secret\n": {"ann", "secret"}, "ann:secret\r\n": {"ann", "secret"}}
	for text, want := range good {
		s := Settings{StoreURL: "redis://h", StoreTimeout: time.Second, AuthFile: write("good", text, 0o640)}
		o, err := s.Load()
		if err != nil || o.User != want[0] || o.Password != want[1] {
			t.Errorf("%q: %+v, %v", text, o, err)
		}
	}
	bad := []string{write("open", ":secret", 0o644), write("writable", ":secret", 0o602), write("none", "secret\n", 0o600), write("two", "a:secret\nb:c\n", 0o600),
		write("empty", "", 0o600), write("blank", "a:\n", 0o600), filepath.Join(dir, "missing"), dir, "/dev/null"}
	for _, path := range bad {
		s := Settings{StoreURL: "redis://h", StoreTimeout: time.Second, AuthFile: path}
		if o, err := s.Load(); err == nil {
			t.Errorf("%s: %+v, want an error", path, o)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", path, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, s := range map[string]Settings{
		"no time":          {StoreURL: "redis://h"},
		"key alone":        {StoreURL: "rediss://h", StoreTimeout: 1, StoreKey: "x"},
		"file for nothing": {StoreTimeout: 1, AuthFile: "x"},
		"no URL":           {StoreURL: "h", StoreTimeout: 1},
	} {
		if s.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s := Settings{StoreURL: "redis://h", StoreTimeout: 1, StoreCA: "/etc/ssl/certs/x"}
	if _, err := s.Load(); err == nil {
		t.Error("authorities without TLS: no error")
	}
}

// TestTLSFiles: the error names the setting whose file is wrong; a key is its owner's.
func TestTLSFiles(t *testing.T) {
	cert, key := testenv.Certificate(t, t.TempDir())
	if err := os.Chmod(key, 0o660); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Settings{
		"clientip-store-ca":   {StoreCA: key},
		"clientip-store-cert": {StoreCert: key + ".none"},
		"clientip-store-key":  {StoreCert: cert, StoreKey: key},
	} {
		s.StoreURL = "rediss://h"
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
