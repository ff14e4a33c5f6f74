package daemon

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"

	"postern/internal/config"
	"postern/internal/logging"
)

// changed reads the settings again and gives the names of those that are not what they
// were at the start.
func (l *life) changed() ([]string, error) {
	fresh := reflect.New(reflect.TypeOf(l.program.Settings).Elem()).Interface().(Settings)
	result, err := l.program.parse(fresh, l.args, io.Discard)
	if err != nil {
		return nil, err
	}
	return config.Changed(l.result, result), nil
}

// reloaded is Env.Reloaded.
func (l *life) reloaded(err error, later []string) {
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
		return fmt.Sprintf("failed %v", err)
	case len(later) > 0:
		return "restart " + strings.Join(later, " ")
	}
	return ""
}
