package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestInstall installs below a directory of its own, twice, and looks at what
// is there.
func TestInstall(t *testing.T) {
	mk := testenv.Path(t, "make install", "make")
	dest := t.TempDir()
	install := func() {
		cmd := exec.Command(mk, "-C", testenv.Root(t), "install", "DESTDIR="+dest, "PREFIX=/opt/postern")
		if stdout, stderr, status := testenv.RunCmd(t, cmd); status != 0 {
			t.Fatalf("make install: status %d\n%s%s", status, stdout, stderr)
		}
	}
	install()

	want := map[string]fs.FileMode{
		"opt/postern/share/man/man7/postern.7":                0o644,
		"opt/postern/share/doc/postern/examples/shut-port-25": 0o755,
		"usr/lib/sysusers.d/postern.conf":                     0o644,
		"usr/lib/tmpfiles.d/postern.conf":                     0o644,
	}
	for program, section := range programs {
		dir := "bin"
		switch {
		case program == "filter-basic":
			dir = "libexec/postern"
		case section == "8":
			dir = "sbin"
		}
		want["opt/postern/"+dir+"/"+program] = 0o755
		want["opt/postern/share/man/man"+section+"/"+program+"."+section] = 0o644
	}
	for _, program := range daemons {
		want["etc/postern/"+program+".conf"] = 0o644
		want["usr/lib/systemd/system/"+program+".service"] = 0o644
	}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(dest, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
	}
	settings := func(name string) string { return filepath.Join(dest, "etc/postern", name) }
	if text, err := os.ReadFile(settings("multiplexor.conf")); err != nil || !strings.Contains("\n"+string(text), "\nworker /opt/postern/libexec/postern/filter-basic\n") {
		t.Errorf("the multiplexor's settings do not name the worker that was installed: %v\n%s", err, text)
	}
	for _, link := range []string{"mimedefang-multiplexor", "md-mx-ctrl"} {
		if _, err := os.Lstat(filepath.Join(dest, "opt/postern/sbin", link)); err == nil {
			t.Errorf("%s is installed, though only the administrator may want it", link)
		}
	}
	for _, program := range daemons {
		unit, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/system", program+".service"))
		if err == nil && !strings.Contains(string(unit), "ExecStart=/opt/postern/sbin/"+program) {
			t.Errorf("the unit of %s does not start what was installed:\n%s", program, unit)
		}
	}

	// A second time, over settings that were changed.
	mine := "maxloadavg 3\n"
	if err := os.WriteFile(settings("smtp-proxy.conf"), []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	install()
	if got, err := os.ReadFile(settings("smtp-proxy.conf")); err != nil || string(got) != mine {
		t.Errorf("settings were overwritten: %q, %v", got, err)
	}
	sample, err := os.ReadFile(settings("smtp-proxy.conf.sample"))
	if err != nil || string(sample) != readTree(t, "etc/smtp-proxy.conf") {
		t.Errorf("no new sample beside them: %v", err)
	}
}
