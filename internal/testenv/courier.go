package testenv

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// CourierServer is a real Courier POP3 server on 127.0.0.1 that serves POP3User with POP3Password. It writes its log to
// standard error.
type CourierServer struct {
	*Jail
	Port    int
	Process *Process
}

var courierAccount = JailAccount{Name: POP3User, ID: 64923, Home: "/home"}

// StartCourier starts a Courier on a free port, with one message in the mailbox. It needs root. What asks for passwords
// elsewhere, Courier's authdaemond, is the test.
func StartCourier(t testing.TB, message string) *CourierServer {
	t.Helper()
	s := &CourierServer{Port: FreePort(t)}
	const (
		tcpd   = "/usr/sbin/couriertcpd"
		login  = "/usr/lib/courier/courier/courierpop3login"
		server = "/usr/lib/courier/courier/courierpop3d"
		socket = "/run/courier/authdaemon/socket"
	)
	s.Jail = NewJail(t, "Courier as POP3 server", "courier-pop", []JailAccount{courierAccount}, tcpd, login, server)
	for _, d := range []string{"", "/Maildir", "/Maildir/cur", "/Maildir/new", "/Maildir/tmp"} {
		s.Mkdir(courierAccount.Home+d, 0o755, courierAccount.ID)
	}
	s.Write(courierAccount.Home+"/Maildir/cur/1.x:2,S", message, 0o644)
	s.Mkdir(filepath.Dir(socket), 0o755, 0)
	l := s.listen(t, socket)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go courierAuth(c)
		}
	}()
	s.Process = Start(t, s.Command(tcpd, "-address=127.0.0.1", "-maxprocs=40", "-maxperip=40", "-nodnslookup", "-noidentlookup",
		strconv.Itoa(s.Port), login, server, "Maildir"))
	awaitGreeting(t, s.Process, "tcp4", s.Address(), func() string { return "" })
	return s
}

// courierAuth answers a question for a password, in authdaemond's protocol: lines of what is known, then AUTH and how many
// bytes follow, of the service, the kind of login, the name and the password, on a line each.
func courierAuth(c net.Conn) {
	defer c.Close()
	_ = Patient(c)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		size, ok := strings.CutPrefix(strings.TrimSpace(line), "AUTH ")
		if !ok {
			continue
		}
		n, _ := strconv.Atoi(size)
		question := make([]byte, min(n, 4096))
		if _, err := io.ReadFull(r, question); err != nil {
			return
		}
		if string(question) != "pop3\nlogin\n"+POP3User+"\n"+POP3Password+"\n" {
			_, _ = io.WriteString(c, "FAIL\n")
			return
		}
		_, _ = fmt.Fprintf(c, "USERNAME=%[1]s\nUID=%[2]d\nGID=%[2]d\nHOME=%[3]s\nADDRESS=%[1]s\nMAILDIR=%[3]s/Maildir\n.\n",
			POP3User, courierAccount.ID, courierAccount.Home)
		return
	}
}

// Address gives HOST:PORT of the server.
func (s *CourierServer) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }
