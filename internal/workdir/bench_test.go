package workdir

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkDirectory has what a front end does for a small message that a worker lets pass.
func BenchmarkDirectory(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "spool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	s := &Spool{Dir: dir, Insecure: true}
	defer s.Close()
	message := []byte("From: a@example.org\r\nTo: b@example.net\r\nSubject: x\r\nMessage-ID: <1@example.org>\r\n\r\n" + strings.Repeat("A line of a message of usual length.\r\n", 25))
	e := Envelope{Sender: "<a@example.org>", ClientName: "localhost", ClientIP: "127.0.0.1", Helo: "localhost", HasHelo: true,
		Macros: [][2]string{{"_", "localhost [127.0.0.1]"}, {"daemon_name", "smtp"}, {"j", "mx.example.net"}, {"mail_addr", "a@example.org"}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := whole(s, e, message); err != nil {
			b.Fatal(err)
		}
	}
}

func whole(s *Spool, e Envelope, message []byte) error {
	e.ID, e.QueueID = s.NewID(), NewQueueID()
	d, err := s.Create(e.QueueID)
	if err != nil {
		return err
	}
	d.Deadline(time.Unix(4e9, 0))
	steps := []func() error{
		func() error { return d.Envelope(e) },
		func() error { return d.Recipient(Recipient{Address: "<b@example.net>"}) },
		func() error {
			c, err := d.Content()
			if err == nil {
				_, err = c.Write(message)
			}
			return err
		},
		d.Finish,
		func() error { return os.WriteFile(filepath.Join(d.Path(), fileResults), []byte("F\n"), 0o600) }, // the worker's
		func() error { _, err := d.Header(); return err },
		func() error {
			body, err := d.Body()
			if err == nil {
				_, err = io.Copy(io.Discard, body)
			}
			return err
		},
		func() error { _, err := d.Results(); return err },
		d.Remove,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
