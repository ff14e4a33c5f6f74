package main

import "strings"

// reload is a reread that a signal asks for: the service manager waits for its end.
func (d *multiplexor) reload() {
	d.reloading = true
	d.reread()
}

// reread makes workers load the filter rules again.
func (d *multiplexor) reread() {
	if d.forks != nil {
		d.forks.Reread(d.pool.NotLoaded)
	}
	d.pool.Reread()
	if d.settings.changed != nil {
		d.work.must(d.nameChanged)
	}
}

// nameChanged says which settings of ours have changed: a reread is of the filter rules alone.
func (d *multiplexor) nameChanged() {
	switch names, err := d.settings.changed(); {
	case err != nil:
		d.lines.Add(levelError, "The settings are wrong now, and would not let this program start: "+err.Error())
	case len(names) > 0:
		d.lines.Add(levelWarning, "Settings have changed and are not in force before a restart: "+strings.Join(names, ", "))
	}
}

// rereadEnded is told when the outcome of a reread is known. A service manager that
// waits for it reads the outcome in the status text.
func (d *multiplexor) rereadEnded() {
	d.env.Status(d.pool.StatusText())
	if d.reloading {
		d.reloading = false
		d.work.must(d.env.Ready)
	}
}
