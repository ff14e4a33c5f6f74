package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"postern/internal/smtp"
	"postern/internal/testenv"
)

// elsewhere is a connection to a server that seems to be on another host.
type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }

// moveAway makes the servers of a set seem to be on another host.
func moveAway(set *Set) {
	for _, s := range set.servers {
		near := s.dialer
		s.dialer = func(ctx context.Context) (*stream, error) {
			st, err := near(ctx)
			if err != nil {
				return nil, err
			}
			return newStream(elsewhere{st.nc}), nil
		}
	}
}

// authServer is a server with AUTH, and STARTTLS as how says: it works, breaks in the handshake, is refused, or is not
// offered.
func authServer(t *testing.T, how string) *peer {
	ca := testenv.NewAuthority(t)
	conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue("127.0.0.1", time.Hour)}}
	return startPeer(t, func(c *peerConn) {
		secure := false
		c.say("220 peer.test ESMTP\r\n")
		for line := c.line(); line != ""; line = c.line() {
			switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); {
			case verb == "EHLO" && !secure && how != "absent":
				c.say("250-peer.test\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
			case verb == "EHLO":
				c.say("250-peer.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n")
			case verb == "STARTTLS" && how == "refused":
				c.say("454 4.7.0 Not now\r\n")
			case verb == "STARTTLS" && how == "broken":
				c.say("220 2.0.0 Go\r\n")
				_, _ = c.r.ReadByte() // its hello
				c.say("no handshake at all\r\n")
				return
			case verb == "STARTTLS":
				c.say("220 2.0.0 Go\r\n")
				if !c.startTLS(conf) {
					return
				}
				secure = true
			case verb == "AUTH":
				c.say("235 2.7.0 Ok\r\n")
			default:
				c.say("250 2.0.0 Ok\r\n")
			}
		}
	})
}

// TestTLS_60_NoPasswordInClear lets the way to a server on another host lose TLS in each way. With may, mail goes on in
// clear and no password does: AUTH is not offered, a kept connection in clear is not taken for it, and the command is
// refused if it comes all the same.
func TestTLS_60_NoPasswordInClear(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		how  string
		mode TLS
		near bool
		auth bool
	}{
		{"works", TLSMay, false, true}, {"broken", TLSMay, false, false}, {"refused", TLSMay, false, false}, {"absent", TLSMay, false, false},
		{"broken", TLSMay, true, true}, {"refused", TLSMay, true, true}, {"absent", TLSMay, true, true},
		{"works", TLSNone, false, true}, {"absent", TLSNone, false, true},
	} {
		t.Run(strings.Join([]string{tt.how, string(tt.mode), map[bool]string{true: "here", false: "elsewhere"}[tt.near]}, " "), func(t *testing.T) {
			p := authServer(t, tt.how)
			set := newSet(t, Config{URLs: []string{p.url()}, TLS: tt.mode})
			if !tt.near {
				moveAway(set)
			}
			for range 2 { // a new connection and a kept one
				c := get(t, set, Client{})
				if got := len(c.Capabilities().Auth) > 0; got != tt.auth {
					t.Errorf("AUTH offered for a message: %v, want %v", got, tt.auth)
				}
				c.Release()
			}
			if caps, err := set.Capabilities(t.Context()); err != nil || len(caps.Auth) > 0 != tt.auth {
				t.Errorf("capabilities %+v, %v", caps, err)
			}
			for range 3 { // passwords that cannot go there are no reason to leave the server alone
				c, err := set.GetForAuth(t.Context(), Client{})
				if err != nil {
					if tt.auth || !errors.Is(err, errInClear) || ReplyFor(err).Code/100 != 4 {
						t.Fatalf("connection for AUTH: %v", err)
					}
					continue
				}
				c.Command("aUTH PLAIN AGJvYgBzZWNyZXQ=")
				r, err := c.Reply(time.Minute)
				if got := err == nil && r.Code == 235; got != tt.auth {
					t.Errorf("AUTH: %v %v, want %v", r, err, tt.auth)
				}
				c.Abort()
			}
			if p.told("AUTH") != tt.auth && p.told("aUTH") != tt.auth {
				t.Errorf("the server heard %q", p.lines())
			}
			c := get(t, set, Client{})
			c.Command(smtp.Mail + " FROM:<a@b.test>")
			if r, err := c.Reply(time.Minute); err != nil || r.Code != 250 {
				t.Errorf("mail behind that: %v %v", r, err)
			}
			c.Abort()
		})
	}
}
