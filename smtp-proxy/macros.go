package main

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
)

// macros gives what filters know as Sendmail macros, with the values that a Postfix has for its milters.
func (s *session) macros(tx *transaction) [][2]string {
	m := [][2]string{{"_", s.peerMacro()}}
	add := func(key, value string) {
		if value != "" {
			m = append(m, [2]string{key, value})
		}
	}
	if s.client.known() {
		add("auth_authen", s.client.login)
		add("auth_type", s.client.authType)
	}
	if s.client.tls != nil {
		version, cipher, bits := tlsNames(s.client.tls)
		if s.client.cert != nil {
			add("cert_issuer", s.client.cert.issuer)
			add("cert_subject", s.client.cert.subject)
			add("verify", s.client.cert.verify)
		}
		add("cipher", cipher)
		add("cipher_bits", bits)
		add("tls_version", version)
	}
	add("daemon_name", s.client.listener)
	add("daemon_port", strconv.Itoa(int(s.client.local.Port())))
	add("i", tx.qid)
	add("if_addr", s.client.localIP())
	add("if_name", s.conf.host)
	add("j", s.conf.host)
	m = append(m, [2]string{"mail_addr", strings.ToLower(tx.from.Address)}) // also if it is empty
	add("mail_host", s.srv.route.Host)
	add("mail_mailer", s.srv.route.Mailer)
	return m
}

// peerMacro is the macro _: what the DNS has for a name of the client, verified or not, and its address.
func (s *session) peerMacro() string {
	name, forged := s.client.dnsName(), ""
	if name == "" && s.client.claimed != "" && s.client.forward == nil {
		name, forged = s.client.claimed, " (may be forged)"
	}
	if name == "" {
		name = "unknown"
	}
	return fmt.Sprintf("%s [%s]%s", name, s.client.ip(), forged)
}

// tlsNames gives version, cipher and its strength under the names of OpenSSL, which are those that filters know.
func tlsNames(state *tls.ConnectionState) (version, cipher, bits string) {
	version = strings.Replace(tls.VersionName(state.Version), "TLS 1.", "TLSv1.", 1)
	return version, cipherName(state.CipherSuite), cipherBits(state.CipherSuite)
}

// opensslNames turns the names of RFC 5246 and its like into OpenSSL's; those of TLS 1.3 are the same.
var opensslNames = strings.NewReplacer("TLS_RSA_WITH_", "", "TLS_", "", "WITH_", "", "3DES_EDE_CBC", "DES-CBC3", "RC4_128", "RC4",
	"AES_128", "AES128", "AES_256", "AES256", "_CBC", "", "POLY1305_SHA256", "POLY1305", "_", "-")

func cipherName(id uint16) string {
	name := tls.CipherSuiteName(id)
	if strings.Contains(name, "_WITH_") {
		return opensslNames.Replace(name)
	}
	return name
}

func cipherBits(id uint16) string {
	name := tls.CipherSuiteName(id)
	switch {
	case strings.Contains(name, "AES_256"), strings.Contains(name, "CHACHA20"):
		return "256"
	case strings.Contains(name, "3DES"):
		return "112"
	}
	return "128"
}
