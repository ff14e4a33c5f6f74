package worker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"postern/filters/worker"
)

// A whole worker: it refuses a sender, and adds a field to the messages of others.
func Example() {
	worker.Main(&worker.Filter{
		Sender: func(r *worker.SenderRequest) worker.Verdict {
			if r.Sender == "<spam@example.com>" {
				return worker.Verdict{Action: worker.Reject, Text: "go away"}
			}
			return worker.Verdict{Action: worker.Continue}
		},
		Scan: func(m *worker.Message) error {
			m.AddHeader("X-Seen", "by the filter")
			return nil
		},
	})
}

// A worker is tried without a multiplexor by giving it requests as text.
func ExampleFilter_Serve() {
	f := &worker.Filter{Recipient: func(r *worker.RecipientRequest) worker.Verdict {
		if strings.HasPrefix(r.Recipient, "<nobody@") {
			return worker.Verdict{Action: worker.Reject, Text: "no such user", Code: "550", DSN: "5.1.1"}
		}
		return worker.Verdict{Action: worker.Continue, Text: "welcome"}
	}}
	requests := "ping\n" +
		"recipok <nobody@example.org> <> 192.0.2.7 mail.example.com <nobody@example.org> helo /dir Q ? ? ?\n" +
		"recipok <bob@example.org> <> 192.0.2.7 mail.example.com <bob@example.org> helo /dir Q ? ? ?\n"
	if err := f.Serve(strings.NewReader(requests), os.Stdout, nil); err != nil {
		fmt.Println(err)
	}
	// Output:
	// PONG
	// ok 0 no%20such%20user 550 5.1.1 0
	// ok 1 welcome 250 2.1.0 0
}

// A message is judged by what the front end knows of it and by its content, and changed by RESULTS.
func ExampleMessage() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{
		"COMMANDS": "S<alice@example.com>\nI192.0.2.7\nR<bob@example.org> ? ? ?\nUReport\nF\n",
		"HEADERS":  "Subject: Report\nX-Seen: forged\n",
		"INPUTMSG": "Subject: Report\nX-Seen: forged\n\nhello\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}
	f := &worker.Filter{Scan: func(m *worker.Message) error {
		m.DeleteAllHeaders("X-Seen")
		m.AddHeader("X-Seen", "from "+m.ClientIP)
		m.ChangeHeader("Subject", "[checked] "+m.Subject, 1)
		return nil
	}}
	if err := f.Serve(strings.NewReader("scan Q "+dir+"\n"), os.Stdout, nil); err != nil {
		fmt.Println(err)
	}
	results, err := os.ReadFile(filepath.Join(dir, "RESULTS"))
	fmt.Print(string(results))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// ok
	// JX-Seen 1
	// HX-Seen from%20192.0.2.7
	// ISubject 1 [checked]%20Report
	// F
}
