package testenv

import (
	"strings"
	"testing"
)

func TestStartDovecot(t *testing.T) {
	curl := Path(t, "curl as POP3 client", "curl")
	s := StartDovecot(t)
	s.Deliver(t, "1.x.y", []byte("Subject: x\n\nhello\n"))
	stdout, stderr, status := Run(t, curl, "-s", "-u", POP3User+":"+POP3Password, "pop3://"+s.Address()+"/1")
	if status != 0 || !strings.Contains(stdout, "hello") {
		t.Errorf("status %d, %q %q\n%s", status, stdout, stderr, s.Process.Output())
	}
}
