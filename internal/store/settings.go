package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/internal/namedfile"
)

// Settings are what a daemon is told of the store. It embeds them in its own.
type Settings struct {
	StoreURL     string        `name:"clientip-store" placeholder:"URL" help:"Stamps are in this Redis or Valkey instead of a directory: redis://HOST:PORT/DB?prefix=NAME, rediss:// for TLS, or unix:///PATH."`
	AuthFile     string        `name:"clientip-store-auth" placeholder:"FILE" help:"User and password for it: a line USER:PASSWORD, or :PASSWORD for the default user."`
	StoreCA      string        `name:"clientip-store-ca" placeholder:"FILE" help:"Authorities (PEM) whose certificates are good for rediss://. Default: those of the system."`
	StoreCert    string        `name:"clientip-store-cert" placeholder:"FILE" help:"Our certificate (PEM) for rediss://, with its key unless that is in clientip-store-key."`
	StoreKey     string        `name:"clientip-store-key" placeholder:"FILE" help:"Key of clientip-store-cert (PEM)."`
	StoreTimeout time.Duration `name:"clientip-store-timeout" default:"200ms" help:"How long the store may take to answer."`
}

// Options say which server, and how to talk to it.
type Options struct {
	Network string   // "tcp" or "unix"
	Addrs   []string // HOST:PORT or a path; several for Sentinel and Cluster
	DB      int
	Prefix  string // of all keys
	Master  string // name of the master, when Addrs are Sentinels
	Cluster bool

	User, Password string
	TLS            *tls.Config // nil for none
	Timeout        time.Duration
}

// defaultPrefix begins the keys where the URL names no other.
const defaultPrefix = "postern:"

// maxSecret bounds the file with the password, in bytes.
const maxSecret = 1 << 20

// Given reports whether there is a store.
func (s *Settings) Given() bool { return s.StoreURL != "" }

// Check looks at the settings. It reads no file.
func (s *Settings) Check() error {
	if s.StoreTimeout <= 0 {
		return errors.New("clientip-store-timeout: must be more than nothing")
	}
	if s.StoreCert == "" && s.StoreKey != "" {
		return errors.New("clientip-store-key: needs clientip-store-cert")
	}
	if !s.Given() {
		for _, file := range [][2]string{{"auth", s.AuthFile}, {"ca", s.StoreCA}, {"cert", s.StoreCert}} {
			if file[1] != "" {
				return fmt.Errorf("clientip-store-%s: needs clientip-store", file[0])
			}
		}
		return nil
	}
	if _, err := parseURL(s.StoreURL); err != nil {
		return fmt.Errorf("clientip-store: %w", err)
	}
	return nil
}

// Files returns the names of all files.
func (s *Settings) Files() []string {
	return slices.DeleteFunc([]string{s.AuthFile, s.StoreCA, s.StoreCert, s.StoreKey}, func(name string) bool { return name == "" })
}

// Load reads the files; nil without a store.
func (s *Settings) Load() (*Options, error) {
	if !s.Given() {
		return nil, nil
	}
	o, err := parseURL(s.StoreURL)
	if err != nil {
		return nil, fmt.Errorf("clientip-store: %w", err)
	}
	o.Timeout = s.StoreTimeout
	if err := s.loadAuth(o); err != nil {
		return nil, fmt.Errorf("clientip-store-auth: %w", err)
	}
	if err := s.loadTLS(o); err != nil {
		return nil, err
	}
	return o, nil
}

// Silent returns what is to be said of a store that does not answer, or does not let us in; "" if it does. It is for
// --check.
func (s *Settings) Silent(ctx context.Context) string {
	o, err := s.Load()
	if err != nil || o == nil {
		return "" // Check and Load say so
	}
	c := Open(o, slog.New(slog.DiscardHandler))
	defer c.Close()
	if err := c.Ping(ctx); err != nil {
		return fmt.Sprintf("clientip-store does not answer: %v", err)
	}
	return ""
}

// loadAuth reads the file with the password, which others may neither read nor write.
func (s *Settings) loadAuth(o *Options) error {
	if s.AuthFile == "" {
		return nil
	}
	data, info, err := namedfile.Read(s.AuthFile, maxSecret)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s: mode %04o lets everybody read or write the password: %w", s.AuthFile, info.Mode().Perm(), fs.ErrPermission)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(data), "\r\n"), ":")
	if !ok || password == "" || strings.ContainsAny(user+password, "\r\n\x00") {
		return fmt.Errorf("%s: not one line USER:PASSWORD or :PASSWORD", s.AuthFile)
	}
	if user != "" {
		o.User = user
	}
	o.Password = password
	return nil
}

func (s *Settings) loadTLS(o *Options) (err error) {
	if o.TLS == nil {
		if s.StoreCA != "" || s.StoreCert != "" {
			return errors.New("clientip-store-ca and clientip-store-cert are for rediss://")
		}
		return nil
	}
	if o.TLS, err = namedfile.ClientTLS(s.StoreCA, "", ""); err != nil {
		return fmt.Errorf("clientip-store-ca: %w", err)
	}
	if s.StoreCert != "" {
		pair, err := namedfile.LoadPair(s.StoreCert, cmp.Or(s.StoreKey, s.StoreCert))
		if err != nil {
			return fmt.Errorf("clientip-store-cert or clientip-store-key: %w", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// parseURL reads redis://[USER@]HOST[:PORT][/DB], rediss:// or unix://PATH, with the parameters prefix, addr (more
// hosts), sentinel (name of the master: the hosts are Sentinels), cluster and db.
func parseURL(text string) (*Options, error) {
	u, err := url.Parse(text)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // without the text, where a password may be
		}
		return nil, fmt.Errorf("no URL: %w", err)
	}
	if _, has := u.User.Password(); has {
		return nil, errors.New("no password in the URL: clientip-store-auth names a file for it")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return nil, fmt.Errorf("%q is not redis://HOST:PORT/DB", text)
	}
	o := &Options{Network: "tcp", Prefix: defaultPrefix, User: u.User.Username()}
	db := strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "unix":
		if u.Host != "" || len(u.Path) < 2 {
			return nil, fmt.Errorf("%q is not unix:///PATH", text)
		}
		o.Network, o.Addrs, db = "unix", []string{u.Path}, ""
	case "rediss":
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	case "redis":
	default:
		return nil, fmt.Errorf("%q does not begin with redis://, rediss:// or unix://", text)
	}
	if o.Network == "tcp" {
		if u.Hostname() == "" {
			return nil, fmt.Errorf("%q names no host", text)
		}
		o.Addrs = []string{u.Host}
	}
	return o, o.parameters(u.Query(), db)
}

// parameters reads what follows the question mark, and the number of the database.
func (o *Options) parameters(query url.Values, db string) error {
	for name, values := range query {
		last := values[len(values)-1]
		switch name {
		case "prefix":
			if strings.ContainsAny(last, "{}\r\n\x00 ") || len(last) > 100 {
				return fmt.Errorf("prefix %q: at most 100 bytes without blanks and braces", last)
			}
			o.Prefix = last
		case "addr":
			o.Addrs = append(o.Addrs, values...)
		case "sentinel":
			o.Master = last
		case "cluster":
			if last != "yes" && last != "no" {
				return fmt.Errorf("cluster=%s: neither yes nor no", last)
			}
			o.Cluster = last == "yes"
		case "db":
			db = last
		default:
			return fmt.Errorf("unknown parameter %q: there are prefix, addr, sentinel, cluster and db", name)
		}
	}
	if db != "" {
		n, err := strconv.ParseUint(db, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no number of a database", db)
		}
		o.DB = int(n)
	}
	switch several := len(o.Addrs) > 1; {
	case o.Cluster && o.Master != "":
		return errors.New("sentinel and cluster exclude each other")
	case o.Network == "unix" && (o.Cluster || o.Master != "" || several):
		return errors.New("a UNIX socket is no way to a Sentinel or Cluster")
	case o.Cluster && o.DB != 0:
		return errors.New("a Cluster has database 0 alone")
	case several && !o.Cluster && o.Master == "":
		return errors.New("several addresses are for sentinel or cluster")
	}
	return o.ports()
}

// ports adds the ports that are not given.
func (o *Options) ports() error {
	if o.Network == "unix" {
		return nil
	}
	port := "6379"
	if o.Master != "" {
		port = "26379"
	}
	for i, a := range o.Addrs {
		u, err := url.Parse("redis://" + a)
		if err != nil || u.Host != a || u.Hostname() == "" {
			return fmt.Errorf("%q is not HOST:PORT", a)
		}
		if u.Port() == "" {
			o.Addrs[i] = strings.TrimSuffix(a, ":") + ":" + port
		}
	}
	return nil
}
