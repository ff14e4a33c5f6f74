package testenv

import (
	"net/smtp"
	"strings"
	"syscall"
	"testing"
)

// The mail servers in jails take mail, deliver it, refuse whom they do not know, and start again.
func TestJailedServersDeliver(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (address string, delivered func() []string, again func() *Process){
		"Exim": func(t *testing.T) (string, func() []string, func() *Process) {
			s := StartExim(t, FreePort(t), "")
			return s.Address(), s.Delivered, restart(s, &s.Process)
		},
		"OpenSMTPD": func(t *testing.T) (string, func() []string, func() *Process) {
			s := StartOpenSMTPD(t)
			return s.Address(), s.Delivered, restart(s, &s.Process)
		},
	} {
		t.Run(name, func(t *testing.T) {
			address, delivered, again := start(t)
			for _, text := range []string{"first", "second"} {
				if err := smtp.SendMail(address, nil, "ann@example.org", []string{"bob@example.net"}, []byte("Subject: x\r\n\r\n"+text+"\r\n")); err != nil {
					t.Fatal(err)
				}
				Eventually(t, "delivery", func() bool { return strings.Contains(strings.Join(delivered(), ""), "\n"+text+"\n") })
				again()
			}
			err := smtp.SendMail(address, nil, "ann@example.org", []string{"nobody@example.net"}, []byte("Subject: x\r\n\r\n"))
			if err == nil || !strings.HasPrefix(err.Error(), "550 ") {
				t.Errorf("unknown recipient: %v, want 550", err)
			}
			p := again()
			p.Stop(syscall.SIGTERM)
			p.Wait()
		})
	}
}

// restart gives a function that ends a server and starts it again.
func restart(s interface{ Start() }, p **Process) func() *Process {
	return func() *Process {
		(*p).Stop(syscall.SIGTERM)
		(*p).Wait()
		s.Start()
		return *p
	}
}
