package testenv

import (
	"net/smtp"
	"strings"
	"syscall"
	"testing"
)

func TestPostfixDelivers(t *testing.T) {
	m := StartPostfix(t, "message_size_limit = 5000", "")
	send := func(text string) error {
		return smtp.SendMail(m.Address(), nil, "ann@example.org", []string{"bob@example.net"}, []byte("Subject: x\r\n\r\n"+text+"\r\n"))
	}
	if err := send("hello there"); err != nil {
		t.Fatal(err)
	}
	got := m.AwaitDelivered("hello there")
	if !strings.Contains(got, "Return-Path: <ann@example.org>") {
		t.Errorf("delivered:\n%s", got)
	}
	if err := send(strings.Repeat("longer than the limit of our own line in main.cf\r\n", 200)); err == nil {
		t.Error("the line given for main.cf has no effect")
	}
	m.Process.Stop(syscall.SIGTERM)
	m.Process.Wait()
}

func TestOverridden(t *testing.T) {
	got := overridden("a = 1\nab = 2\nb =\n", "b = 3\na=4\n c = d")
	if want := "ab = 2\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
