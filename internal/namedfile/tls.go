package namedfile

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// maxPEM bounds a file of certificates or keys; all authorities of a system are a tenth of that.
const maxPEM = 4 << 20

// ClientTLS reads the authorities that are believed, those of the system if ca is "", and our certificate and its key
// if cert is not ""; the key may be in the same file. No host name is set.
func ClientTLS(ca, cert, key string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		var err error
		if conf.RootCAs, err = LoadAuthorities(ca); err != nil {
			return nil, err
		}
	}
	if cert != "" {
		pair, err := LoadPair(cert, cmp.Or(key, cert))
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// LoadPair reads a certificate and its key. A key that others may write is nobody's own.
func LoadPair(cert, key string) (tls.Certificate, error) {
	chain, _, err := Read(cert, maxPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load certificate %q: %w", cert, err)
	}
	secret, info, err := Read(key, maxPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load certificate %q: %w", cert, err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return tls.Certificate{}, fmt.Errorf("load certificate %q: others may write to %q", cert, key)
	}
	pair, err := tls.X509KeyPair(chain, secret)
	if err != nil {
		return pair, fmt.Errorf("load certificate %q: %w", cert, err)
	}
	return pair, nil
}

// LoadAuthorities reads certificates of authorities.
func LoadAuthorities(file string) (*x509.CertPool, error) {
	text, _, err := Read(file, maxPEM)
	if err != nil {
		return nil, fmt.Errorf("load authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("load authorities: no certificate in %q", file)
	}
	return pool, nil
}
