// Package tlsconf holds the settings of TLS that the daemons share, and makes of them what crypto/tls wants.
package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/internal/namedfile"
)

// Server are the settings of TLS with clients. A daemon embeds them in its own.
type Server struct {
	Cert       []string      `name:"tls-cert" sep:"none" placeholder:"FILE" help:"Certificate chain (PEM), with its key unless that is in tls-key. Several: the name that a client asks for (SNI) chooses, else it is the first."`
	Key        []string      `name:"tls-key" sep:"none" placeholder:"FILE" help:"Key of the certificate (PEM). With several certificates one for each, in their order."`
	Min        []string      `name:"tls-min" sep:"none" placeholder:"VERSION [LISTENER...]" help:"Oldest TLS version: 1.2, 1.3, or 1.0 and 1.1, which are broken, for the listeners named behind it, or for all."`
	Timeout    time.Duration `name:"tls-timeout" default:"30s" help:"How long a TLS handshake may take."`
	ClientCert []string      `name:"tls-client-cert" sep:"none" placeholder:"WHEN [LISTENER...]" help:"Certificates of clients: none, ask or require, for the listeners named behind it, or for all."`
	ClientCA   string        `name:"tls-client-ca" placeholder:"FILE" help:"Authorities (PEM) whose certificates are good for tls-client-cert."`
}

// The values of the setting tls-client-cert.
const (
	certNone    = "none"    // the client is not asked
	certAsk     = "ask"     // it is asked; one without, or with one that is not good, is let in all the same
	certRequire = "require" // nobody is let in without TLS and a good one
)

// Listener is TLS with the clients of one listener.
type Listener struct {
	Config   *tls.Config
	Required bool // a client must begin TLS before anything else
}

// Check looks at the settings for these listeners. It reads no file.
func (s *Server) Check(listeners ...string) error {
	switch {
	case len(s.Key) > 0 && len(s.Key) != len(s.Cert):
		return fmt.Errorf("tls-key: is set %d times, and tls-cert %d times", len(s.Key), len(s.Cert))
	case s.Timeout < time.Second:
		return errors.New("tls-timeout: value is too small")
	}
	if _, err := perListener("tls-min", s.Min, versionNames, "1.2", listeners); err != nil {
		return err
	}
	rules, err := s.clientRules(listeners)
	if err != nil {
		return err
	}
	for _, rule := range rules {
		switch {
		case rule == certNone:
		case len(s.Cert) == 0:
			return errors.New("tls-client-cert: needs tls-cert")
		case s.ClientCA == "":
			return errors.New("tls-client-cert: needs tls-client-ca")
		}
	}
	return nil
}

// clientRules returns the rule for each listener.
func (s *Server) clientRules(listeners []string) (map[string]string, error) {
	return perListener("tls-client-cert", s.ClientCert, []string{certNone, certAsk, certRequire}, certNone, listeners)
}

// Requires reports whether clients of all these listeners, which are those that the settings may name, must have a
// certificate.
func (s *Server) Requires(listeners ...string) bool {
	rules, err := s.clientRules(listeners)
	for _, rule := range rules {
		if rule != certRequire {
			return false
		}
	}
	return err == nil
}

// perListener reads lines of a choice and the listeners that it is for, or is for all; the last one counts.
func perListener(key string, lines, choices []string, usual string, listeners []string) (map[string]string, error) {
	rules := make(map[string]string, len(listeners))
	for _, name := range listeners {
		rules[name] = usual
	}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) == 0 || !slices.Contains(choices, words[0]) {
			return nil, fmt.Errorf("%s: %q does not begin with one of %s", key, line, strings.Join(choices, ", "))
		}
		names := words[1:]
		if len(names) == 0 {
			names = listeners
		}
		for _, name := range names {
			if _, ok := rules[name]; !ok {
				return nil, fmt.Errorf("%s: %q is none of the listeners %s", key, name, strings.Join(listeners, ", "))
			}
			rules[name] = words[0]
		}
	}
	return rules, nil
}

// Files returns the names of all files.
func (s *Server) Files() []string {
	files := slices.Concat(s.Cert, s.Key)
	if s.ClientCA != "" {
		files = append(files, s.ClientCA)
	}
	return files
}

// Load reads the files and gives TLS for each of the listeners; nil without certificates. Each has keys of its own for
// session tickets, so that none takes a session up again that began at another one, where other rules may hold, or
// before the files were read anew.
func (s *Server) Load(listeners ...string) (map[string]*Listener, error) {
	if len(s.Cert) == 0 {
		return nil, nil
	}
	var certs []tls.Certificate
	for i, file := range s.Cert {
		key := file
		if len(s.Key) > i {
			key = s.Key[i]
		}
		cert, err := namedfile.LoadPair(file, key)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	var pool *x509.CertPool
	if s.ClientCA != "" {
		var err error
		if pool, err = namedfile.LoadAuthorities(s.ClientCA); err != nil {
			return nil, err
		}
	}
	rules, err := s.clientRules(listeners)
	if err != nil {
		return nil, err
	}
	oldest, err := perListener("tls-min", s.Min, versionNames, "1.2", listeners)
	if err != nil {
		return nil, err
	}
	all := make(map[string]*Listener, len(rules))
	for name, rule := range rules {
		l := &Listener{Config: &tls.Config{Certificates: certs, MinVersion: versions[oldest[name]]}}
		if l.Config.MinVersion < tls.VersionTLS12 {
			l.Config.CipherSuites = oldSuites()
		}
		switch rule {
		case certAsk:
			l.Config.ClientAuth, l.Config.ClientCAs = tls.RequestClientCert, pool
		case certRequire:
			l.Config.ClientAuth, l.Config.ClientCAs, l.Required = tls.RequireAndVerifyClientCert, pool, true
		}
		all[name] = l
	}
	return all, nil
}

// versions are the values of the setting tls-min.
var versions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

var versionNames = []string{"1.0", "1.1", "1.2", "1.3"}

// oldSuites are the usual cipher suites and those that clients of TLS 1.0 and 1.1 may have alone.
func oldSuites() []uint16 {
	var suites []uint16
	for _, suite := range tls.CipherSuites() {
		suites = append(suites, suite.ID)
	}
	return append(suites, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA)
}

// Warnings says which listeners take versions of TLS that are broken.
func (s *Server) Warnings(listeners ...string) []string {
	var all []string
	oldest, _ := perListener("tls-min", s.Min, versionNames, "1.2", listeners)
	for _, name := range listeners {
		if v := oldest[name]; len(s.Cert) > 0 && versions[v] < tls.VersionTLS12 {
			all = append(all, fmt.Sprintf("tls-min: listener %s takes TLS %s, which is broken (RFC 8996): passwords and mail can be read on the way", name, v))
		}
	}
	return all
}

// Expires is when the first of the certificates ends; the zero time if there is none.
func (l *Listener) Expires() (first time.Time) {
	if l == nil {
		return first
	}
	for _, cert := range l.Config.Certificates {
		if first.IsZero() || cert.Leaf.NotAfter.Before(first) { // X509KeyPair has parsed it
			first = cert.Leaf.NotAfter
		}
	}
	return first
}

// Peer returns the certificate that the client has shown, if it has; the error says why it is not good.
func (l *Listener) Peer(state *tls.ConnectionState) (*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, nil
	}
	leaf := state.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: l.Config.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return leaf, err
}
