package held

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// maildir makes a Maildir with files in it, by their paths.
func maildir(t *testing.T, files map[string]string) (*Box, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "held")
	for _, place := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, place), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b, dir
}

const envelope = "Return-Path: <from@client.example>\nDelivered-To: one@server.example\nDelivered-To: two@server.example\nX-Postern-Hold: looks\n odd\n"

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		name, text             string
		from, to, reason, subj string
		utf8                   bool
		content, err           string
	}{
		{name: "plain", text: envelope + "Subject: one\nDelivered-To: other@x.example\n\nText\n",
			from: "from@client.example", to: "one@server.example two@server.example", reason: "looks odd", subj: "one",
			content: "Subject: one\nDelivered-To: other@x.example\n\nText\n"},
		{name: "bounce", text: "Return-Path: <>\nDelivered-To: a@b.example\nX-Postern-Hold: x\nSubject: =?utf-8?q?=C3=BC?=\n two\n\n",
			to: "a@b.example", reason: "x", subj: "ü two", content: "Subject: =?utf-8?q?=C3=BC?=\n two\n\n"},
		{name: "internationalized", text: "Return-Path: <ü@b.example>\nDelivered-To: a@b.example\nX-Postern-Hold: x\nX-Scanned: yes\nReceived: from a ([192.0.2.1])\n\tby b with UTF8SMTP id 1\n\n",
			from: "ü@b.example", to: "a@b.example", reason: "x", utf8: true, content: "X-Scanned: yes\nReceived: from a ([192.0.2.1])\n\tby b with UTF8SMTP id 1\n\n"},
		{name: "said by another server", text: envelope + "Received: by b with ESMTP\nSubject: x\nReceived: by c with UTF8SMTP\n\n",
			from: "from@client.example", to: "one@server.example two@server.example", reason: "looks odd", subj: "x", content: "Received: by b with ESMTP\nSubject: x\nReceived: by c with UTF8SMTP\n\n"},
		{name: "foreign", text: "Subject: hello\n\nText\n", err: "not held by smtp-proxy"},
		{name: "no reason", text: "Return-Path: <a@b>\nDelivered-To: c@d\nSubject: hello\n\nText\n", err: "not held by smtp-proxy"},
		{name: "nobody", text: "Return-Path: <a@b>\nX-Postern-Hold: x\n\nText\n", err: "not held by smtp-proxy"},
		{name: "cut off", text: envelope + "Subject: one\n", err: "cut off"},
		{name: "empty", err: "not held by smtp-proxy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _ := maildir(t, map[string]string{"new/1.id": tt.text})
			m, err := b.Show("1.id")
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if tt.err != "" {
				if m.Err == nil || !strings.Contains(m.Err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", m.Err, tt.err)
				}
				return
			}
			content, err := io.ReadAll(m.Content())
			if m.Err != nil || err != nil {
				t.Fatal(m.Err, err)
			}
			if to := strings.Join(m.To, " "); m.From != tt.from || to != tt.to || m.Reason != tt.reason || m.Subject != tt.subj || m.UTF8 != tt.utf8 {
				t.Errorf("from %q to %q reason %q subject %q UTF-8 %t", m.From, to, m.Reason, m.Subject, m.UTF8)
			}
			if string(content) != tt.content {
				t.Errorf("content is %q", content)
			}
		})
	}
}

// TestNothingElse: links, directories and files of other places are no messages, whatever the id.
func TestNothingElse(t *testing.T) {
	b, dir := maildir(t, map[string]string{"new/1.a": envelope + "\n", "cur/1.b:2,S": envelope + "\n", "tmp/1.c": envelope + "\n", "secret": envelope + "\n"})
	if err := os.Symlink("../secret", filepath.Join(dir, "new", "1.link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "new", "1.dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := b.List()
	if err != nil || len(all) != 2 {
		t.Errorf("listed %v, %v", all, err)
	}
	if n, bytes, err := b.Count(); n != 2 || bytes != int64(2*len(envelope)+2) || err != nil {
		t.Errorf("counted %d, %d bytes, %v", n, bytes, err)
	}
	for _, id := range []string{"../secret", "../../held/secret", "../new/1.a", "new/1.a", "1.c", "", ".", "..", "1.a\x00", "/etc/passwd"} {
		if m, err := b.Take(id); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v, %v", id, m, err)
		}
	}
	for _, id := range []string{"1.link", "1.dir"} {
		if m, err := b.Take(id); err == nil {
			t.Errorf("%q: %v", id, m)
		}
	}
}

// TestTake: a message is one command's at a time, and is gone for the others once it is removed, also if a mail reader has
// moved it.
func TestTake(t *testing.T) {
	b, dir := maildir(t, map[string]string{"new/1.a": envelope + "\n"})
	m, err := b.Take("1.a")
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.List()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	late, err := b.Show("1.a") // as a command does that is about to take it
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if _, err := b.Take("1.a"); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := all[0].Take(); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice, of the list: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "new", "1.a"), filepath.Join(dir, "cur", "1.a:2,S")); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if late.there() {
		t.Error("what was removed is there")
	}
	if _, err := b.Take("1.a"); !errors.Is(err, ErrNone) {
		t.Errorf("taken again: %v", err)
	}
	if _, err := all[0].Take(); !errors.Is(err, ErrNone) {
		t.Errorf("taken again, of the list: %v", err)
	}
}
