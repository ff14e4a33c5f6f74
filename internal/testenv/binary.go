package testenv

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// BinaryDir names the environment variable with the directory for the built
// programs. `make test` sets it to one that it fills before the tests, and then
// removes: what is there is not looked at again. Without it they are kept in the
// temporary directory, one per user and source tree, where the next `go test`
// finds them up to date.
const BinaryDir = "POSTERN_TEST_BIN"

var built sync.Map // name of a program -> func() (string, error)

// Binary builds one of the suite's programs, at most once in this test process,
// and gives the path of its binary, which every user may execute. Tests with real
// programs are none of a quick run.
func Binary(t testing.TB, program string) string {
	t.Helper()
	NotQuick(t, "runs the real "+program)
	build, _ := built.LoadOrStore(program, sync.OnceValues(func() (string, error) { return buildProgram(program) }))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatalf("build %s: %v", program, err)
	}
	return path
}

func buildProgram(program string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	source, err := programSource(root, program)
	if err != nil {
		return "", err
	}
	if err := dependOnSources(root); err != nil {
		return "", err
	}
	dir, err := binaryDir(root)
	if err != nil {
		return "", err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(dir, program)
	if _, err := os.Stat(path); err == nil && os.Getenv(BinaryDir) != "" {
		return path, nil
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./"+source)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// programSource finds the directory of a program below root: its name is the
// name of the last directory.
func programSource(root, program string) (string, error) {
	for _, pattern := range []string{program, "*/" + program, "*/*/" + program} {
		found, err := filepath.Glob(filepath.Join(root, pattern, "main.go"))
		if err != nil {
			return "", err
		}
		if len(found) == 1 {
			return filepath.Rel(root, filepath.Dir(found[0]))
		}
	}
	return "", fmt.Errorf("no directory of that name with a main.go")
}

// dependOnSources looks at every Go file of the tree. `go test` notes which files
// a test looks at, so that it does not show an old result of a test that runs
// programs after one of their sources has changed.
func dependOnSources(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
}

func binaryDir(root string) (string, error) {
	if dir := os.Getenv(BinaryDir); dir != "" {
		return dir, nil
	}
	sum := sha256.Sum256([]byte(root))
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("postern-test-%d-%x", os.Getuid(), sum[:4]))
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return "", err
	}
	// The name can be guessed and the directory may be shared: use it only if
	// it is ours.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s belongs to somebody else", dir)
	}
	return dir, nil
}

// lockDir keeps the test processes of several packages from building into the
// same file at the same time.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
