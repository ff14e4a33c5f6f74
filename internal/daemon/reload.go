package daemon

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"postern/internal/config"
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

// reloaded is Env.Reloaded.
func (l *instance) reloaded(err error, later []string) {
	l.reloads.count(err)
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

// ReloadText is what an event says of a reload.
func ReloadText(err error, later []string) string {
	switch {
	case err != nil:
		return reloadFailed + err.Error()
	case len(later) > 0:
		return reloadRestart + strings.Join(later, " ")
	}
	return ""
}

// Words with which ReloadText begins.
const (
	reloadFailed  = "failed "
	reloadRestart = "restart "
)

// reloadTime is how long a daemon may take to reload, which includes reading its files.
const reloadTime = time.Minute

// reload is --reload: a wrong setting does not reach the daemon, and what it makes of the others is our outcome.
func (p *Program) reload(result *config.Result, stderr io.Writer) int {
	if err := p.sound(result, stderr); err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
		return config.ExitSettings
	}
	text, err := p.haveReloaded(p.Settings.common().Reload)
	if failure, failed := strings.CutPrefix(text, reloadFailed); failed {
		err = fmt.Errorf("settings are not reloaded: %s", failure)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
		return exitFailure
	}
	if names, later := strings.CutPrefix(text, reloadRestart); later {
		fmt.Fprintf(stderr, "%s: warning: reloaded, but not in force before a restart: %s\n", p.Name, names)
	}
	return 0
}

// haveReloaded has a daemon reload and returns what its event says of that.
func (p *Program) haveReloaded(pid int) (string, error) {
	socket := "/run/postern/" + p.Name + "-notify.sock" // of the unit
	for _, r := range p.Listeners() {
		if r.Name == "notify" && len(r.Specs) > 0 {
			socket = r.Specs[0]
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), reloadTime, fmt.Errorf("nothing within %v", reloadTime))
	defer cancel()
	outcome, err := p.Reloads(ctx, socket)
	if err != nil {
		return "", fmt.Errorf("not reloaded, as the outcome could not be heard: events at %s: %w", socket, err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return "", fmt.Errorf("signal to process %d: %w", pid, err)
	}
	text, err := outcome()
	if err != nil {
		return "", fmt.Errorf("outcome of the reload: events at %s: %w", socket, err)
	}
	return text, nil
}
