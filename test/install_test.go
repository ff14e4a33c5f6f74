package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// TestInstall installs below a directory of its own, twice, looks at what is
// there, and takes it back.
func TestInstall(t *testing.T) {
	t.Parallel()
	mk := testenv.Path(t, "make install", "make")
	dest, bin := t.TempDir(), t.TempDir()
	for program := range programs { // make finds them up to date, and need not link them
		text, err := os.ReadFile(testenv.Binary(t, program))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, program), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		cmd := exec.Command(mk, append([]string{"-C", testenv.Root(t), "BIN=" + bin}, args...)...)
		cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
		if stdout, stderr, status := testenv.RunCmd(t, cmd); status != 0 {
			t.Fatalf("make %q: status %d\n%s%s", args, status, stdout, stderr)
		}
	}
	// Whoever installs need not have Go: what is built is installed.
	install := func() { run("install", "DESTDIR="+dest, "PREFIX=/opt/postern", "GO=/nonexistent/go") }
	run("build")
	install()

	want := map[string]fs.FileMode{
		"opt/postern/share/man/man7/postern.7":                   0o644,
		"opt/postern/share/doc/postern/examples/shut-port-25":    0o755,
		"opt/postern/share/doc/postern/examples/mimedefang.conf": 0o644,
		"opt/postern/libexec/postern/pop3-stamp-postlogin":       0o755,
		"usr/lib/sysusers.d/postern.conf":                        0o644,
		"usr/lib/tmpfiles.d/postern.conf":                        0o644,
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
		for _, script := range []string{"bash-completion/completions/" + program, "zsh/site-functions/_" + program, "fish/vendor_completions.d/" + program + ".fish"} {
			want["opt/postern/share/"+script] = 0o644
		}
		want["opt/postern/share/man/man"+section+"/"+program+"."+section] = 0o644
	}
	for _, program := range daemons {
		want["etc/postern/"+program+".conf"] = 0o644
		want["usr/lib/systemd/system/"+program+".service"] = 0o644
	}
	for _, kind := range []string{"socket", "target"} {
		for _, name := range unitFiles(t, kind) {
			want["usr/lib/systemd/system/"+name] = 0o644
		}
	}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(dest, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), mode)
		}
	}
	// What pages, settings, units and examples say of places is where things are.
	inUsr := regexp.MustCompile(`/usr/(local/)?(sbin|bin|libexec|share)/(doc/)?(postern|multiplexor|mx-ctrl|smtp-proxy|pop3-stamp|notify-|filter-basic)`)
	err := filepath.WalkDir(dest, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.Contains(path, "bin/") || strings.Contains(path, "libexec/") {
			return err
		}
		text, err := os.ReadFile(path)
		if found := inUsr.Find(text); found != nil {
			t.Errorf("%s names %s", path, found)
		}
		return err
	})
	if err != nil {
		t.Error(err)
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

	// Settings are all that is left.
	run("uninstall", "DESTDIR="+dest, "PREFIX=/opt/postern", "GO=/nonexistent/go")
	if got, err := os.ReadFile(settings("smtp-proxy.conf")); err != nil || string(got) != mine {
		t.Errorf("settings after make uninstall: %q, %v", got, err)
	}
	if err := filepath.WalkDir(dest, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && (filepath.Ext(path) != ".conf" || filepath.Dir(path) != filepath.Join(dest, "etc/postern")) {
			t.Errorf("make uninstall leaves %s", path)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}
