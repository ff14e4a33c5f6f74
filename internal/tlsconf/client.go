package tlsconf

import (
	"cmp"
	"crypto/tls"
	"errors"
	"slices"
)

// Client are the settings of TLS with the upstream server that need files. A daemon embeds them in its own, beside
// upstream-tls.
type Client struct {
	CA   string `name:"upstream-tls-ca" placeholder:"FILE" help:"Authorities (PEM) whose certificates are good for upstream-tls verify. Default: those of the system."`
	Cert string `name:"upstream-tls-cert" placeholder:"FILE" help:"Our certificate (PEM), with its key unless that is in upstream-tls-key, for servers that ask for one."`
	Key  string `name:"upstream-tls-key" placeholder:"FILE" help:"Key of upstream-tls-cert (PEM)."`
}

// Check looks at the settings. It reads no file.
func (c *Client) Check() error {
	if c.Cert == "" && c.Key != "" {
		return errors.New("upstream-tls-key: needs upstream-tls-cert")
	}
	return nil
}

// Files gives the names of all files.
func (c *Client) Files() []string {
	return slices.DeleteFunc([]string{c.CA, c.Cert, c.Key}, func(name string) bool { return name == "" })
}

// Load reads the files. What it gives checks certificates, but no host name is set.
func (c *Client) Load() (*tls.Config, error) { return LoadClient(c.CA, c.Cert, c.Key) }

// LoadClient reads the authorities that are believed, those of the system if ca is "", and our certificate and its key
// if cert is not ""; the key may be in the same file. No host name is set.
func LoadClient(ca, cert, key string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		var err error
		if conf.RootCAs, err = loadAuthorities(ca); err != nil {
			return nil, err
		}
	}
	if cert != "" {
		pair, err := loadPair(cert, cmp.Or(key, cert))
		if err != nil {
			return nil, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
