package upstream

import "net"

// Route is where mail goes, in words of a mail server: its mailer, as Postfix calls it, and the host.
type Route struct{ Mailer, Host string }

// RouteOf gives the route to the server that a URL names; it is empty if the URL is malformed.
func RouteOf(url string) Route {
	e, err := parseEndpoint(url)
	if err != nil {
		return Route{}
	}
	mailer := "smtp"
	if e.lmtp {
		mailer = "lmtp"
	}
	switch e.network {
	case "exec":
		return Route{"prog", e.argv[0]}
	case "maildir":
		return Route{"local", e.address}
	case "unix":
		return Route{mailer, "unix:" + e.address}
	}
	_, port, _ := net.SplitHostPort(e.address) // it was put together by parseEndpoint
	return Route{mailer, "[" + e.host + "]:" + port}
}
