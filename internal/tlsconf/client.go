package tlsconf

import (
	"crypto/tls"
	"errors"
	"slices"

	"postern/internal/namedfile"
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

// Files returns the names of all files.
func (c *Client) Files() []string {
	return slices.DeleteFunc([]string{c.CA, c.Cert, c.Key}, func(name string) bool { return name == "" })
}

// Load reads the files. What it gives checks certificates, but no host name is set.
func (c *Client) Load() (*tls.Config, error) { return namedfile.ClientTLS(c.CA, c.Cert, c.Key) }
