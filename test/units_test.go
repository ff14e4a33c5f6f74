package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/internal/testenv"
)

// listenerNames are the names under which each daemon takes listeners.
var listenerNames = map[string][]string{
	"smtp-proxy":    {"smtp", "submission", "smtps", "notify", "metrics"},
	"multiplexor":   {"requests", "status", "notify", "map", "metrics"},
	"pop3-stamp":    {"pop3", "pop3s", "stamps", "notify", "metrics"},
	"postern-board": {"http", "https", "notify", "metrics"},
}

// unit is a systemd unit: the values of each key, in their order.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	for line := range strings.Lines(readTree(t, "etc/systemd/"+name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			u[key] = append(u[key], value)
		}
	}
	return u
}

// words gives the words of all values of a key.
func (u unit) words(key string) []string { return strings.Fields(strings.Join(u[key], " ")) }

// unitFiles gives the names of the units of a kind.
func unitFiles(t *testing.T, kind string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(testenv.Root(t), "etc/systemd", "*."+kind))
	if err != nil || len(found) == 0 {
		t.Fatalf("no units of kind %s: %v", kind, err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// TestConventionUnitsAreWellFormed has systemd read all of them together, with the programs as built.
func TestConventionUnitsAreWellFormed(t *testing.T) {
	t.Parallel()
	analyze := testenv.Path(t, "check of the systemd units", "systemd-analyze")
	dir := testenv.ShortDir(t)
	var names []string
	for _, kind := range []string{"service", "socket", "target"} {
		for _, name := range unitFiles(t, kind) {
			text := readTree(t, "etc/systemd/"+name)
			for _, program := range append([]string{"mx-ctrl"}, daemons...) {
				// systemd looks whether the program is there: let it find ours.
				text = strings.ReplaceAll(text, "/usr/sbin/"+program, testenv.Binary(t, program))
			}
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			names = append(names, file)
		}
	}
	stdout, stderr, status := testenv.Run(t, analyze, append([]string{"verify", "--man=no"}, names...)...)
	if said := stdout + stderr; status != 0 || strings.Contains(said, dir) {
		t.Errorf("systemd-analyze verify: status %d\n%s", status, said)
	}
}

// TestConventionUnitsAreShutIn: systemd finds each service exposed by 1.5 of 10 at most.
func TestConventionUnitsAreShutIn(t *testing.T) {
	t.Parallel()
	analyze := testenv.Path(t, "check of the systemd units", "systemd-analyze")
	for _, name := range unitFiles(t, "service") {
		out, said, status := testenv.Run(t, analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", filepath.Join(testenv.Root(t), "etc/systemd", name))
		if status != 0 || !strings.Contains(out, "Overall exposure level") {
			t.Errorf("%s: status %d\n%s%s", name, status, out, said)
		}
	}
}

// TestConventionEveryListenerHasASocketUnit: a socket is of one listener, is required by its service only when it
// is enabled, and the service comes after it.
func TestConventionEveryListenerHasASocketUnit(t *testing.T) {
	t.Parallel()
	there := map[string]string{} // DAEMON LISTENER -> socket unit
	for _, name := range unitFiles(t, "socket") {
		u := readUnit(t, name)
		service := strings.TrimSuffix(name, ".socket") + ".service"
		if s := u["Service"]; s != nil {
			service = s[0]
		}
		program := strings.TrimSuffix(service, ".service")
		if len(u["ListenStream"]) != 1 || len(u["FileDescriptorName"]) != 1 {
			t.Errorf("%s: listens on %q as %q, want one address and one name", name, u["ListenStream"], u["FileDescriptorName"])
			continue
		}
		listener := u["FileDescriptorName"][0]
		if !slices.Contains(listenerNames[program], listener) {
			t.Errorf("%s: %s has no listener %q", name, program, listener)
		}
		there[program+" "+listener] = name
		for key, want := range map[string]string{"RequiredBy": service, "WantedBy": "sockets.target", "PartOf": "postern.target"} {
			if !slices.Contains(u.words(key), want) {
				t.Errorf("%s: %s=%s, want %s in it", name, key, u[key], want)
			}
		}
		if after := readUnit(t, service).words("After"); !slices.Contains(after, name) {
			t.Errorf("%s comes after %q, want %s among them", service, after, name)
		}
		everybody := slices.Equal(u["SocketMode"], []string{"0666"}) // the daemon asks the kernel who it is
		if strings.HasPrefix(u["ListenStream"][0], "/") && (u["SocketMode"] == nil || u["SocketGroup"] == nil) && !everybody {
			t.Errorf("%s: everybody may connect, or nobody: want SocketMode and SocketGroup", name)
		}
	}
	for program, listeners := range listenerNames {
		for _, listener := range listeners {
			if there[program+" "+listener] == "" {
				t.Errorf("no socket unit for the listener %s of %s", listener, program)
			}
		}
	}
}

// TestConventionNoUnitClaimsAPortNobodyAskedFor: a port belongs to whom the administrator gives it, by enabling its
// socket unit; what comes along with a service are UNIX sockets alone.
func TestConventionNoUnitClaimsAPortNobodyAskedFor(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"service", "target"} {
		for _, name := range unitFiles(t, kind) {
			u := readUnit(t, name)
			for _, key := range []string{"Also", "Requires", "Wants", "BindsTo", "Upholds", "Sockets"} {
				for _, other := range u.words(key) {
					if !strings.HasSuffix(other, ".socket") {
						continue
					}
					if address := readUnit(t, other)["ListenStream"]; !strings.HasPrefix(fmt.Sprint(address), "[/") {
						t.Errorf("%s: %s=%s claims %s", name, key, other, address)
					}
				}
			}
		}
	}
}

// TestConventionWrongSettingsStopAService: they do not become right by trying again, and must not use up the starts
// after which systemd closes the sockets.
func TestConventionWrongSettingsStopAService(t *testing.T) {
	t.Parallel()
	for _, program := range daemons {
		u := readUnit(t, program+".service")
		if got := u.words("RestartPreventExitStatus"); !slices.Equal(got, []string{"64", "78"}) {
			t.Errorf("%s: RestartPreventExitStatus=%s, want 64 78", program, got)
		}
		if !regexp.MustCompile(`SERVICE_RESULT.*sleep 3`).MatchString(fmt.Sprint(u["ExecStopPost"])) {
			t.Errorf("%s: ExecStopPost=%s, want a pause after a failure", program, u["ExecStopPost"])
		}
	}
}

// TestConventionUnitsOfDaemons: what every daemon is given.
func TestConventionUnitsOfDaemons(t *testing.T) {
	t.Parallel()
	accounts := map[string]string{"smtp-proxy": "postern", "pop3-stamp": "postern", "postern-board": "postern", "multiplexor": "postern-filter"}
	sysusers := readTree(t, "etc/sysusers.d/postern.conf")
	for _, program := range daemons {
		u := readUnit(t, program+".service")
		for key, want := range map[string]string{"User": accounts[program], "LimitCORE": "0", "NoNewPrivileges": "yes", "PrivateTmp": "yes", "PartOf": "postern.target"} {
			if got := u[key]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s=%q, want %s", program, key, got, want)
			}
		}
		if !regexp.MustCompile(`(?m)^u ` + accounts[program] + `\s`).MatchString(sysusers) {
			t.Errorf("nobody makes the account %s", accounts[program])
		}
	}
}

// maxExposure is ten times the exposure that systemd-analyze security may find.
const maxExposure = "15"

// TestConventionUnitsAreNotExposed: a service can do little that it does not need.
func TestConventionUnitsAreNotExposed(t *testing.T) {
	t.Parallel()
	analyze := testenv.Path(t, "exposure of the systemd units", "systemd-analyze")
	for _, name := range unitFiles(t, "service") {
		file := filepath.Join(testenv.Root(t), "etc/systemd", name)
		stdout, stderr, status := testenv.Run(t, analyze, "security", "--no-pager", "--offline=yes", "--threshold="+maxExposure, file)
		if status != 0 {
			t.Errorf("systemd-analyze security: status %d\n%s%s", status, stdout, stderr)
		}
	}
}

// TestConventionUnitsAreInThePage: an administrator finds each in postern(7).
func TestConventionUnitsAreInThePage(t *testing.T) {
	t.Parallel()
	page := readTree(t, "man/postern.7")
	for _, kind := range []string{"service", "socket", "target"} {
		for _, name := range unitFiles(t, kind) {
			if slices.Contains(daemons, strings.TrimSuffix(name, ".service")) {
				continue // "a service of its name"
			}
			if !strings.Contains(page, name) {
				t.Errorf("postern(7) does not mention %s", name)
			}
		}
	}
}
