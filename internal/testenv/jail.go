package testenv

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Jail is a directory that a real program takes for its whole system: it has
// the program, the libraries, the accounts, and the directories with fixed
// names that it wants. So mail servers of which only one may be installed, and
// only one may run, run side by side, several times, and touch nothing outside.
// Their network is the machine's.
type Jail struct {
	Dir string

	t    testing.TB
	from string // the unpacked package
}

// JailAccount is an account within a jail, with a group of the same name and number.
type JailAccount struct {
	Name string
	ID   int
	Home string
}

// NewJail makes a jail for programs of a Debian package that test/unpack.sh has
// unpacked. Programs are full paths; one that is not in the package is taken
// from the machine. It needs root.
func NewJail(t testing.TB, what, pkg string, accounts []JailAccount, programs ...string) *Jail {
	t.Helper()
	NeedRoot(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		LeaveOut(t, what, "no directory for unpacked packages: "+err.Error())
	}
	j := &Jail{Dir: ShortDir(t), t: t, from: filepath.Join(cache, "postern-peers", pkg)}
	if _, err := os.Stat(j.from); err != nil {
		LeaveOut(t, what, "package "+pkg+" is not unpacked: test/unpack.sh")
	}
	for _, dir := range []string{"etc", "dev", "run", "var"} {
		j.Mkdir("/"+dir, 0o755, 0)
	}
	j.Mkdir("/tmp", 0o777|fs.ModeSticky, 0)
	if err := os.Symlink("../run", filepath.Join(j.Dir, "var/run")); err != nil {
		t.Fatal(err)
	}
	j.Write("/dev/null", "", 0o666) // a plain file does, and may be made everywhere
	j.accounts(accounts)
	for _, p := range programs {
		j.install(p)
	}
	return j
}

func (j *Jail) accounts(accounts []JailAccount) {
	users, groups := "root:x:0:0:root:/:/bin/sh\n", "root:x:0:\n"
	for _, a := range append(accounts, JailAccount{Name: "nobody", ID: 65534, Home: "/nonexistent"}) {
		users += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", a.Name, a.ID, a.ID, a.Home)
		groups += fmt.Sprintf("%s:x:%d:\n", a.Name, a.ID)
	}
	j.Write("/etc/passwd", users, 0o644)
	j.Write("/etc/group", groups, 0o644)
	j.Write("/etc/hosts", "127.0.0.1 localhost\n", 0o644)
	j.Write("/etc/nsswitch.conf", "hosts: files\n", 0o644)
	// Nobody asks the DNS.
	j.Write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0o644)
}

// libraryLine is a line of ldd: "name => /path (0x..)" or "/path (0x...)".
var libraryLine = regexp.MustCompile(`(?m)(/\S+) \(0x[0-9a-f]+\)$`)

// install copies a program and the libraries it needs.
func (j *Jail) install(program string) {
	j.t.Helper()
	source := j.source(program)
	j.copy(source, program)
	dirs, err := filepath.Glob(filepath.Join(j.from, "usr/lib/*-linux-gnu*"))
	if err != nil {
		j.t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(j.from, "lib/*-linux-gnu*"))
	if err != nil {
		j.t.Fatal(err)
	}
	cmd := exec.Command("ldd", source)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LD_LIBRARY_PATH="+strings.Join(append(append(dirs, more...), filepath.Join(j.from, "usr/lib")), ":"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "not found") {
		j.t.Fatalf("libraries of %s: %v\n%s", source, err, out)
	}
	for _, m := range libraryLine.FindAllStringSubmatch(string(out), -1) {
		j.copy(m[1], strings.TrimPrefix(m[1], j.from))
	}
}

// source gives the file that has a path in the package, or else on the machine.
func (j *Jail) source(path string) string {
	if unpacked := filepath.Join(j.from, path); exists(unpacked) {
		return unpacked
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (j *Jail) copy(source, path string) {
	j.t.Helper()
	to := filepath.Join(j.Dir, path)
	if exists(to) {
		return
	}
	text, err := os.ReadFile(source)
	if err != nil {
		j.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		j.t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o755); err != nil {
		j.t.Fatal(err)
	}
}

// Mkdir makes a directory with all that are above it, and gives it to an account.
func (j *Jail) Mkdir(path string, mode fs.FileMode, owner int) {
	j.t.Helper()
	dir := filepath.Join(j.Dir, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		j.t.Fatal(err)
	}
	if err := os.Chown(dir, owner, owner); err != nil {
		j.t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		j.t.Fatal(err)
	}
}

// Write writes a file.
func (j *Jail) Write(path, text string, mode fs.FileMode) {
	j.t.Helper()
	file := filepath.Join(j.Dir, path)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		j.t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		j.t.Fatal(err)
	}
}

func (j *Jail) chmod(path string, mode fs.FileMode) {
	j.t.Helper()
	if err := os.Chmod(filepath.Join(j.Dir, path), mode); err != nil {
		j.t.Fatal(err)
	}
}

// Read gives the text of a file, "" if there is none.
func (j *Jail) Read(path string) string {
	text, err := os.ReadFile(filepath.Join(j.Dir, path))
	if err != nil && !os.IsNotExist(err) {
		j.t.Error(err)
	}
	return string(text)
}

// Command prepares a program to run within the jail.
func (j *Jail) Command(program string, args ...string) *exec.Cmd {
	return &exec.Cmd{
		Path: program, Args: append([]string{program}, args...), Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		SysProcAttr: &syscall.SysProcAttr{Chroot: j.Dir},
	}
}
