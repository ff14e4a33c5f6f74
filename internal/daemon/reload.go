package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"postern/internal/config"
	"postern/internal/listen"
	"postern/internal/logging"
)

// reread is Env.Reread.
func (l *instance) reread(fresh Settings, fixed []string) (later []string, err error) {
	result, err := l.program.parse(fresh, l.args, io.Discard)
	if err != nil {
		return nil, err
	}
	notFixed := func(name string) bool { return !slices.Contains(fixed, name) }
	return slices.DeleteFunc(config.Changed(l.result, result), notFixed), nil
}

// theProgram stands among the settings that have changed, for a file of the program that has.
const theProgram = "program"

// upgraded reports whether the program is another one than was started.
func (l *instance) upgraded() bool {
	now, err := os.Stat(l.path)
	return err == nil && l.file != nil && !(os.SameFile(now, l.file) && now.ModTime().Equal(l.file.ModTime()))
}

// tell is Env.Tell, if the program has set it, which it does before it is ready.
func (l *instance) tell(text string) {
	if l.state.n.Load() != starting && l.env.Tell != nil {
		l.env.Tell(text)
	}
}

// reloaded is Env.Reloaded.
func (l *instance) reloaded(err error, later []string) {
	if l.upgraded() {
		later = append(later, theProgram)
	}
	l.reloads.count(err)
	l.tell(reloadText(err, later))
	ctx := logging.Earned(context.Background()) // no stranger causes these
	switch {
	case err != nil:
		l.env.Log.ErrorContext(ctx, "settings are not reloaded", "error", err)
		l.notifier.Status(fmt.Sprintf("reload has failed, all stays as it was: %v", err))
	case len(later) > 0:
		names := strings.Join(later, ", ")
		l.env.Log.WarnContext(ctx, "settings reloaded, but some that have changed need a restart", "not_in_force", names)
		l.notifier.Status("reloaded; not in force before a restart: " + names)
	default:
		l.env.Log.InfoContext(ctx, "settings reloaded")
		l.notifier.Status("reloaded")
	}
	l.sayReady()
}

// reloadText is what an event says of a reload.
func reloadText(err error, later []string) string {
	switch {
	case err != nil:
		return reloadFailed + err.Error()
	case len(later) > 0:
		return reloadRestart + strings.Join(later, " ")
	}
	return ""
}

// Words with which the text of an event begins.
const (
	reloadFailed   = "failed "
	reloadRestart  = "restart "
	reloadReplaced = "replaced " // and the process that has taken over
)

// reloadTime is how long a daemon may take to reload, which includes reading its files.
const reloadTime = time.Minute

// reload is --reload: a wrong setting does not reach the daemon, and what it makes of the others is our outcome.
func (p *Program) reload(result *config.Result, stderr io.Writer) int {
	if err := p.sound(result, stderr); err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
		return config.ExitSettings
	}
	later, err := p.haveReloaded(stderr)
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
		return exitFailure
	}
	if len(later) > 0 {
		fmt.Fprintf(stderr, "%s: warning: reloaded, but not in force before a restart: %s\n", p.Name, strings.Join(later, " "))
	}
	return 0
}

// haveReloaded has a daemon reload, and replaced if that is wanted and needed. It returns what is not in force then.
func (p *Program) haveReloaded(stderr io.Writer) (later []string, err error) {
	socket := "/run/postern/" + p.Name + "-notify.sock" // of the unit
	for _, r := range p.Listeners() {
		if r.Name == "notify" && len(r.Specs) > 0 {
			socket = r.Specs[0]
		}
	}
	limit := reloadTime + takeoverWait
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("nothing within %v", limit))
	defer cancel()
	outcome, err := p.Reloads(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("not reloaded, as the outcome could not be heard: events at %s: %w", socket, err)
	}
	common := p.Settings.common()
	after := func(signal syscall.Signal, failure string) (string, error) {
		if err := syscall.Kill(common.Reload, signal); err != nil {
			return "", fmt.Errorf("signal to process %d: %w", common.Reload, err)
		}
		text, err := outcome()
		if err != nil {
			return "", fmt.Errorf("outcome of the reload: events at %s: %w", socket, err)
		}
		if why, failed := strings.CutPrefix(text, reloadFailed); failed {
			return "", fmt.Errorf("%s: %s", failure, why)
		}
		return text, nil
	}
	text, err := after(syscall.SIGHUP, "settings are not reloaded")
	if names, ok := strings.CutPrefix(text, reloadRestart); ok {
		later = strings.Fields(names)
	}
	stay := slices.DeleteFunc(slices.Clone(later), func(name string) bool { return !p.stays(name) })
	if err != nil || !common.TakeOver || len(stay) == len(later) {
		return later, err
	}
	if text, err = after(syscall.SIGUSR2, "reloaded, but for "+strings.Join(later, " ")); err != nil {
		return nil, err
	}
	fmt.Fprintf(stderr, "%s: process %s has taken over, for: %s\n", p.Name, strings.TrimPrefix(text, reloadReplaced), strings.Join(later, " "))
	return stay, nil
}

// stays reports whether a process that takes over has that setting from the one before.
func (p *Program) stays(setting string) bool {
	return slices.Contains([]string{"socket-mode", "socket-group", "user", "allow-root", "no-new-privs", "pidfile"}, setting) ||
		slices.ContainsFunc(p.Listeners(), func(r listen.Request) bool { return r.Name == setting })
}
