package privdrop

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"postern/internal/testenv"
)

// userVariable makes the test binary drop to the user it names, with many
// threads running, and print what /proc says of each; modeVariable varies it.
const (
	userVariable = "PRIVDROP_TEST_USER"
	modeVariable = "PRIVDROP_TEST_MODE"
)

func TestMain(m *testing.M) {
	if user, ok := os.LookupEnv(userVariable); ok {
		os.Exit(child(user, os.Getenv(modeVariable)))
	}
	testenv.Main(m)
}

const childThreads = 20

func child(user, mode string) int {
	if mode == "child of one who dropped" {
		anyWay()
		return 0
	}
	// Threads of our own, each in its own state: busy, in a system call, new.
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i := range childThreads {
		running.Add(1)
		go func() {
			runtime.LockOSThread()
			running.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if i > 0 { // one alone is busy: more would keep what is tested from running on a small machine
					unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
				}
			}
		}()
	}
	running.Wait()
	go func() { // threads that come and go while the ids change
		for {
			done := make(chan struct{})
			go func() { runtime.LockOSThread(); close(done) }()
			<-done
			unix.Nanosleep(&unix.Timespec{Nsec: 1e5}, nil)
		}
	}()
	defer close(stop)
	err := Drop(user, mode == "allow root")
	if mode == "odd thread" {
		changeOneThread()
		err = verify(current(), idCaps)
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	if mode == "any way" {
		anyWay()
		return anyWayOfChild()
	}
	printThreads()
	printBack()
	return 0
}

// changeOneThread gives one thread other groups than the rest have: it goes
// past the Go runtime, which would change all.
func changeOneThread() {
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		groups := [1]uint32{12}
		syscall.RawSyscall(syscall.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups)), 0)
		close(started)
		select {}
	}()
	<-started
}

func printThreads() {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		fmt.Println("error:", err)
	}
	for _, e := range entries {
		data, err := os.ReadFile("/proc/self/task/" + e.Name() + "/status")
		if err != nil {
			continue
		}
		var line []string
		for _, l := range strings.Split(string(data), "\n") {
			for _, key := range []string{"Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:", "CapAmb:"} {
				if strings.HasPrefix(l, key) {
					line = append(line, strings.Join(strings.Fields(l), " "))
				}
			}
		}
		fmt.Println("thread", strings.Join(line, " | "))
	}
}

func printBack() {
	fmt.Println("back to root:", syscall.Setuid(0), "/", syscall.Setgid(0), "/", syscall.Setgroups([]int{0}))
}

func runChild(t *testing.T, user, mode string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	// With the race detector a process sleeps a second before it ends, unless told otherwise.
	cmd.Env = append(os.Environ(), userVariable+"="+user, modeVariable+"="+mode, "GORACE=atexit_sleep_ms=0")
	out, _, status := testenv.RunCmd(t, cmd)
	return out, status
}

// FS-12: all ids of all threads, and no way back.
func TestDrop(t *testing.T) {
	testenv.NeedRoot(t)
	tests := []struct {
		user   string
		uid    int
		gid    int
		groups string
	}{
		{"nobody", 65534, 65534, "65534"},
		{"65534", 65534, 65534, "65534"},
		{"1234.4321", 1234, 4321, "4321"},
		{"54321", 54321, 65534, "65534"},
		{"nobody:12", 65534, 12, "12"},
		{"nobody:games", 65534, 60, "60"},
	}
	for _, tt := range tests {
		t.Run(tt.user, func(t *testing.T) {
			out, status := runChild(t, tt.user, "")
			if status != 0 {
				t.Fatalf("status %d:\n%s", status, out)
			}
			want := fmt.Sprintf("thread Uid: %[1]d %[1]d %[1]d %[1]d | Gid: %[2]d %[2]d %[2]d %[2]d | Groups: %[3]s |"+
				" CapPrm: 0000000000000000 | CapEff: 0000000000000000 | CapAmb: 0000000000000000", tt.uid, tt.gid, tt.groups)
			threads := 0
			for _, line := range strings.Split(out, "\n") {
				if strings.HasPrefix(line, "thread") {
					threads++
					if line != want {
						t.Errorf("got  %s\nwant %s", line, want)
					}
				}
			}
			if threads < childThreads {
				t.Errorf("only %d threads were seen", threads)
			}
			const refused = "back to root: operation not permitted / operation not permitted / operation not permitted\n"
			if !strings.Contains(out, refused) {
				t.Errorf("output:\n%s\nwant %s", out, refused)
			}
		})
	}
}

// TestNoWayBack becomes users taken at random and tries every way to any other id that the kernel has, on all
// threads and in a child: INV-08.
func TestNoWayBack(t *testing.T) {
	testenv.NeedRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 8))
	for range testenv.Load(4, 15) {
		user := fmt.Sprintf("%d.%d", 1+random.IntN(65000), 1+random.IntN(65000))
		out, status := runChild(t, user, "any way")
		if status != 0 || strings.Contains(out, "got away") || strings.Count(out, "stayed\n") != 2 {
			t.Fatalf("as %s, status %d:\n%s", user, status, out)
		}
	}
}

// anyWay tries what a process could do to become somebody else.
func anyWay() {
	const same = ^uintptr(0)
	var uid, gid uintptr // not as they are, but as they should be
	if _, err := fmt.Sscanf(os.Getenv(userVariable), "%d.%d", &uid, &gid); err != nil {
		fmt.Println("error:", err)
	}
	calls := []struct {
		number uintptr
		keep   uintptr
	}{{syscall.SYS_SETRESUID, uid}, {syscall.SYS_SETREUID, uid}, {syscall.SYS_SETUID, uid}, {syscall.SYS_SETRESGID, gid}, {syscall.SYS_SETREGID, gid}, {syscall.SYS_SETGID, gid}}
	var wg sync.WaitGroup
	for range childThreads {
		wg.Go(func() {
			runtime.LockOSThread()
			for _, call := range calls {
				for _, id := range []uintptr{0, 1, 65534} {
					if id == call.keep {
						continue
					}
					for args := range 7 { // id at every set of the three places
						a := [3]uintptr{same, same, same}
						for i := range a {
							if (args+1)>>i&1 == 1 {
								a[i] = id
							}
						}
						if call.number == syscall.SYS_SETUID || call.number == syscall.SYS_SETGID {
							a[0] = id
						}
						if (call.number == syscall.SYS_SETREUID || call.number == syscall.SYS_SETREGID) && a[0] == same && a[1] == same {
							continue // nothing is asked for
						}
						if _, _, err := syscall.RawSyscall(call.number, a[0], a[1], a[2]); err == 0 {
							fmt.Println("got away by call", call.number, a)
						}
					}
				}
			}
			group := uint32(0)
			if _, _, err := syscall.RawSyscall(syscall.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group)), 0); err == 0 {
				fmt.Println("got away into a group")
			}
		})
	}
	wg.Wait()
	fmt.Println("stayed")
}

func anyWayOfChild() int {
	cmd := exec.Command("/proc/self/exe") // whose path may be closed to the new user
	cmd.Env = append(os.Environ(), modeVariable+"=child of one who dropped")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// FS-13.
func TestDropRefused(t *testing.T) {
	testenv.NeedRoot(t)
	tests := []struct{ name, user, mode, want string }{
		{"an odd thread", "root", "odd thread", "supplementary groups are [12], want "},
		{"root", "root", "", "user root (0.0): refusing to run as root"},
		{"uid 0", "0", "", "refusing to run as root"},
		{"uid 0 with a group", "0.65534", "", "refusing to run as root"},
		{"root's group", "65534.0", "", "refusing to run as root"},
		{"root's group by name", "nobody:root", "", "refusing to run as root"},
		{"unknown", "no-such-user", "", `user "no-such-user": user: unknown user no-such-user`},
		{"unknown group", "nobody:no-such-group", "", `group "no-such-group"`},
		{"empty", "", "", "user is empty"},
		{"highest id", "4294967295", "", "no user or group id"},
		{"too high", "4294967296", "", "no user or group id"},
		{"negative", "-1", "", `user "-1"`},
		{"no gid", "65534.", "", "no user or group id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, status := runChild(t, tt.user, tt.mode)
			if status != 1 || !strings.Contains(out, tt.want) {
				t.Errorf("status %d, output %q; want %q", status, out, tt.want)
			}
		})
	}
}

func TestAllowRoot(t *testing.T) {
	testenv.NeedRoot(t)
	out, status := runChild(t, "root", "allow root")
	if status != 0 || !strings.Contains(out, "thread Uid: 0 0 0 0 | Gid: 0 0 0 0") {
		t.Errorf("status %d, output:\n%s", status, out)
	}
	out, status = runChild(t, "65534.0", "allow root")
	if status != 0 || !strings.Contains(out, "thread Uid: 65534 65534 65534 65534 | Gid: 0 0 0 0") {
		t.Errorf("status %d, output:\n%s", status, out)
	}
}

// A process that is not root stays what it is, whatever the setting says.
func TestDropNotRoot(t *testing.T) {
	testenv.NeedRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The binary is in a directory of root's; it is copied to where nobody may go.
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := testenv.ShortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/t", data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		cmd := exec.Command(dir + "/t")
		cmd.Env = append(os.Environ(), userVariable+"=root")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		want, wantStatus := "thread Uid: 65534 65534 65534 65534 | Gid: 65534 65534 65534 65534", 0
		if keep {
			cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SETUID}
			want, wantStatus = "are still", 1
		}
		out, _, status := testenv.RunCmd(t, cmd)
		if status != wantStatus || !strings.Contains(out, want) {
			t.Errorf("CAP_SETUID %v: status %d, output:\n%s", keep, status, out)
		}
	}
}

func TestLookup(t *testing.T) {
	tests := []struct {
		in       string
		name     string
		uid, gid uint32
	}{
		{"root", "root", 0, 0},
		{"0", "root", 0, 0},
		{"nobody", "nobody", 65534, 65534},
		{"nobody:0", "nobody", 65534, 0},
		{"1234.4321", "", 1234, 4321},
		{"4294967294.4294967294", "", 4294967294, 4294967294},
	}
	for _, tt := range tests {
		a, err := Lookup(tt.in)
		if err != nil || a.Name != tt.name || uint32(a.UID) != tt.uid || uint32(a.GID) != tt.gid || !slices.Contains(a.Groups, int(tt.gid)) {
			t.Errorf("Lookup(%q) = %+v, %v", tt.in, a, err)
		}
	}
}

func TestVerifyStatus(t *testing.T) {
	a := Account{UID: 7, GID: 8, Groups: []int{9, 8}}
	status := func(uid, gid, groups, caps string) string {
		return "Name:\tx\nUid:\t" + uid + "\nGid:\t" + gid + "\nGroups:\t" + groups +
			"\nCapInh:\t0\nCapPrm:\t" + caps + "\nCapEff:\t0\nCapAmb:\t0\n"
	}
	setuid := strconv.FormatUint(1<<7, 16)
	tests := []struct{ name, status, want string }{
		{"all right", status("7\t7\t7\t7", "8 8 8 8", "8 9 ", "0"), ""},
		{"saved user id", status("7\t7\t0\t7", "8 8 8 8", "8 9", "0"), "user ids"},
		{"real group id", status("7 7 7 7", "0 8 8 8", "8 9", "0"), "group ids"},
		{"a group more", status("7 7 7 7", "8 8 8 8", "0 8 9", "0"), "supplementary groups are [0 8 9]"},
		{"a group less", status("7 7 7 7", "8 8 8 8", "8", "0"), "supplementary groups"},
		{"capability", status("7 7 7 7", "8 8 8 8", "8 9", setuid), "capabilities CapPrm"},
		{"no ids", "Name: x\n", "user ids"},
		{"no groups", "Uid: 7 7 7 7\nGid: 8 8 8 8\n", "groups are not shown"},
		{"no capabilities", "Uid: 7 7 7 7\nGid: 8 8 8 8\nGroups: 8 9\n", "capabilities"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := verifyStatus([]byte(tt.status), a, allCaps)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
