package filter

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"

	"postern/internal/smtp"
)

// Client is what a filter is told of a client, and of where it came in.
type Client struct {
	Session string // id for the log, told in replies that speak of trouble

	IP, Name string // Name is that of the DNS, verified; "" if there is none
	Claimed  string // a name that the DNS has for the client, and that has not its address
	Port     int    // 0 if unknown
	Helo     string
	HasHelo  bool // it has said HELO or EHLO

	LoggedIn        bool
	Login, AuthType string
	TLS             *tls.ConnectionState // nil: none
	Cert            *Cert                // nil: it was not asked for one

	Listener, MyName, MyIP string // where it came in
	MyPort                 int
}

// Cert is the certificate of a client.
type Cert struct {
	Issuer, Subject, Verify string // Verify is a word of Sendmail's macro verify
}

// hostName returns the client's name as filters know it: its address in square brackets if it has none.
func (c *Client) hostName() string {
	if c.Name != "" {
		return c.Name
	}
	return "[" + c.IP + "]"
}

// resolved returns an address as Postfix has it once it has looked where to send it: in lower case, and without quotes
// that it does not need.
func resolved(p smtp.Path) string {
	plain := p.Address
	if strings.HasPrefix(plain, `"`) {
		plain = p.Local() + "@" + p.Domain
		if q, rest, err := smtp.ParsePath("<"+plain+">", smtp.CheckRFC); err != nil || rest != "" || q.Address != plain {
			plain = p.Address
		}
	}
	return strings.ToLower(plain)
}

// macros returns what filters know as Sendmail macros, with the values that a Postfix has for its milters.
func (c *Client) macros(f *Filter, qid string, sender smtp.Path) [][2]string {
	m := [][2]string{{"_", c.peer()}}
	add := func(key, value string) {
		if value != "" {
			m = append(m, [2]string{key, value})
		}
	}
	if c.LoggedIn {
		add("auth_authen", c.Login)
		add("auth_type", c.AuthType)
	}
	var version, cipher, bits string
	var cert Cert
	if c.TLS != nil {
		version, cipher, bits = tlsNames(c.TLS)
		if c.Cert != nil {
			cert = *c.Cert
		}
	}
	add("cert_issuer", cert.Issuer)
	add("cert_subject", cert.Subject)
	add("cipher", cipher)
	add("cipher_bits", bits)
	add("daemon_name", c.Listener)
	add("daemon_port", strconv.Itoa(c.MyPort))
	add("i", qid)
	add("if_addr", c.MyIP)
	add("if_name", c.MyName)
	add("j", c.MyName)
	m = append(m, [2]string{"mail_addr", resolved(sender)}) // also if it is empty
	add("mail_host", f.Host)
	add("mail_mailer", f.Mailer)
	add("tls_version", version)
	add("verify", cert.Verify)
	return m
}

// peer is the macro _: what the DNS has for a name of the client, verified or not, and its address.
func (c *Client) peer() string {
	switch {
	case c.Name != "":
		return fmt.Sprintf("%s [%s]", c.Name, c.IP)
	case c.Claimed != "":
		return fmt.Sprintf("%s [%s] (may be forged)", c.Claimed, c.IP)
	}
	return fmt.Sprintf("unknown [%s]", c.IP)
}

// tlsNames returns version, cipher and its strength under the names of OpenSSL, which are those that filters
// know.
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
