package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"postern/internal/testenv"
)

// The authorities and the certificate of the settings are those that TLS with the server behind uses.
func TestLoadUpstreamTLS(t *testing.T) {
	dir := testenv.ShortDir(t)
	cert, key := testenv.Certificate(t, dir)
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if conf, err := loadUpstreamTLS(&settings{}); conf != nil || err != nil {
		t.Errorf("without settings: %v, %v", conf, err)
	}
	conf, err := loadUpstreamTLS(&settings{UpstreamSettings: UpstreamSettings{
		UpstreamTLSCA: cert, UpstreamTLSCert: cert, UpstreamTLSKey: key,
	}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: conf.RootCAs, DNSName: "localhost"}); err != nil {
		t.Errorf("authority is not known: %v", err)
	}
	if len(conf.Certificates) != 1 || conf.MinVersion != tls.VersionTLS12 {
		t.Errorf("%d certificates, least version %x", len(conf.Certificates), conf.MinVersion)
	}
	for name, s := range map[string]UpstreamSettings{
		"authorities missing": {UpstreamTLSCA: filepath.Join(dir, "none")},
		"authorities empty":   {UpstreamTLSCA: empty},
		"key missing":         {UpstreamTLSCert: cert, UpstreamTLSKey: filepath.Join(dir, "none")},
	} {
		if conf, err := loadUpstreamTLS(&settings{UpstreamSettings: s}); err == nil {
			t.Errorf("%s: %v", name, conf)
		}
	}
}
