package gate

import (
	"context"
	"strings"
	"sync/atomic"

	"postern/internal/namedfile"
	"postern/internal/smtp"
)

// RefuseFile is shut while a file exists.
type RefuseFile struct {
	path atomic.Pointer[string]
}

func (g *RefuseFile) set(path string) { g.path.Store(&path) }

// Name returns the gate's name.
func (g *RefuseFile) Name() string { return NameRefuseFile }

// Check refuses everybody, with the first line of the file.
func (g *RefuseFile) Check(context.Context, Client) *smtp.Reply {
	path := *g.path.Load()
	if path == "" {
		return nil
	}
	data, err := namedfile.Head(path, 400)
	if err != nil {
		return nil
	}
	text, _, _ := strings.Cut(string(data), "\n")
	if text = strings.TrimSpace(text); text == "" {
		text = "Service is down for maintenance, try again later"
	}
	return shut(421, "4.3.2", text)
}
