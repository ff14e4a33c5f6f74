package workdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/internal/safedir"
)

// ErrNoSpace is wrapped by errors that come from a full disk, quota or descriptor table: the client may try again
// when there is room (SMTP 452 4.3.1). Any other error is local trouble of another kind (451 4.3.0).
var ErrNoSpace = errors.New("no room in the spool")

// Spool is the directory that working directories are made in. Set the exported fields before the first call.
type Spool struct {
	Dir   string // absolute path; must exist, belong to this account, and not be writable for everybody
	Group string // name or number of the workers' group when they run as another account; "" = same account

	MaxHeader int64         // bytes of a message's header; 0 = 1 MiB
	MaxFields int           // fields of a message's header; 0 = 10000
	AsideAge  time.Duration // how long a directory put aside stays; 0 = 10 minutes
	Insecure  bool          // do not check the rights of Dir and the directories above it

	// Empty has the workers' account remove what is in a directory of that name in Dir, put aside, which this account
	// cannot: see the function of the same name. nil where workers run as this account.
	Empty func(ctx context.Context, name string) error

	mu      sync.Mutex
	root    *os.Root
	gid     int
	counter uint32
	started bool
	left    chan string
}

func (s *Spool) maxHeader() int64 {
	if s.MaxHeader > 0 {
		return s.MaxHeader
	}
	return 1 << 20
}

func (s *Spool) maxFields() int {
	if s.MaxFields > 0 {
		return s.MaxFields
	}
	return 10000
}

func (s *Spool) asideAge() time.Duration {
	if s.AsideAge > 0 {
		return s.AsideAge
	}
	return 10 * time.Minute
}

// Open checks the spool directory and its parents and opens it; Create does the same when Open was not called. A
// program calls it at start to learn of a bad setting early. An unsafe directory gives an error that wraps
// [safedir.ErrInsecure].
func (s *Spool) Open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.openLocked()
	return err
}

func (s *Spool) openLocked() (*os.Root, error) {
	if s.root != nil {
		return s.root, nil
	}
	gid, err := s.check()
	if err != nil {
		return nil, err
	}
	open := func() (*os.Root, error) { return safedir.Open(s.Dir, safedir.Account{UID: -1, GID: gid}) }
	if s.Insecure {
		open = func() (*os.Root, error) { return os.OpenRoot(s.Dir) }
	}
	root, err := open()
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s.root, s.gid = root, gid
	return root, nil
}

// Check returns what Open would say, without opening or changing anything; also are accounts that the spool may
// belong to although they are not that of this process.
func (s *Spool) Check(also ...safedir.Account) error {
	gid, err := s.check()
	if err == nil && !s.Insecure {
		if err = safedir.Check(s.Dir, append(also, safedir.Account{UID: -1, GID: gid})...); err != nil {
			err = fmt.Errorf("open spool: %w", err)
		}
	}
	return err
}

// check returns the workers' group, or -1.
func (s *Spool) check() (gid int, err error) {
	if !filepath.IsAbs(s.Dir) {
		return -1, fmt.Errorf("open spool %q: not an absolute path: %w", s.Dir, fs.ErrInvalid)
	}
	if s.Group == "" {
		return -1, nil
	}
	if gid, err = lookupGroup(s.Group); err != nil {
		return -1, fmt.Errorf("open spool %q: %w", s.Dir, err)
	}
	return gid, nil
}

// Workers returns the workers' group as an account that is trusted in and above the spool.
func (s *Spool) Workers() []safedir.Account {
	if gid, err := s.check(); err == nil && gid >= 0 {
		return []safedir.Account{{UID: -1, GID: gid}}
	}
	return nil
}

func lookupGroup(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// rootDir returns the open spool directory; again opens it anew, for when it was removed and made again.
func (s *Spool) rootDir(again bool) (*os.Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again && s.root != nil {
		_ = s.root.Close()
		s.root = nil
	}
	return s.openLocked()
}

// Close closes the spool directory. Working directories that are still open can be used, but not removed.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == nil {
		return nil
	}
	err := s.root.Close()
	s.root = nil
	return err
}

// idAlphabet are the 60 digits of message and queue ids, in the order of their value.
const idAlphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"

// clockDigits are the seconds since the epoch modulo 60^5 in five digits.
func clockDigits(t time.Time) []byte {
	n := t.Unix() % (60 * 60 * 60 * 60 * 60)
	b := make([]byte, 5, 16)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = idAlphabet[n%60]
		n /= 60
	}
	return b
}

// NewID returns a message id in MIMEDefang's form: seven characters, five for the clock and two that count. Two
// processes can make the same, so it does not name a directory.
func (s *Spool) NewID() string {
	s.mu.Lock()
	if !s.started {
		// A random start keeps the ids of a process started again within the second apart.
		var b [2]byte
		_, _ = rand.Read(b[:])
		s.counter, s.started = (uint32(b[0])<<8|uint32(b[1]))%3600, true
	}
	n := s.counter % 3600
	s.counter++
	s.mu.Unlock()
	b := clockDigits(time.Now())
	return string(append(b, idAlphabet[n/60], idAlphabet[n%60]))
}

// NewQueueID returns 16 letters and digits: the clock, so that ids sort by time, and 55 random bits, so that nobody
// can tell the name of the next working directory.
func NewQueueID() string {
	return string(append(clockDigits(time.Now()), strings.ToLower(rand.Text()[:11])...))
}

// checkQueueID accepts 1 to 31 letters, digits, '-', '_' and '.', not beginning with a dot.
func checkQueueID(qid string) error {
	ok := qid != "" && len(qid) <= maxQueueID && qid[0] != '.'
	for i := 0; ok && i < len(qid); i++ {
		c := qid[i]
		ok = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("-_.", c) >= 0
	}
	if !ok {
		return fmt.Errorf("queue id %q: %w", qid, fs.ErrInvalid)
	}
	return nil
}

// Create makes the working directory for the message qid (letters, digits, at most 31), with an empty HEADERS and
// COMMANDS in it. If a directory of that name is there already (another process), the name gets a random
// ending: nothing depends on it. The caller must call Remove.
func (s *Spool) Create(qid string) (*Dir, error) {
	if err := checkQueueID(qid); err != nil {
		return nil, fmt.Errorf("create working directory: %w", err)
	}
	root, err := s.rootDir(false)
	if err != nil {
		return nil, classify(err)
	}
	name := dirPrefix + qid
	for try := 0; ; try++ {
		err = root.Mkdir(name, 0o700)
		switch {
		case err == nil:
			return s.fill(root, name)
		case errors.Is(err, fs.ErrExist) && try < 5:
			name = dirPrefix + qid + "." + strings.ToLower(rand.Text()[:6])
		case errors.Is(err, fs.ErrNotExist) && try == 0:
			if root, err = s.rootDir(true); err != nil {
				return nil, classify(err)
			}
		default:
			return nil, classify(fmt.Errorf("create working directory: %w", err))
		}
	}
}

// fill opens the new directory, gives it its rights and its first files.
func (s *Spool) fill(root *os.Root, name string) (_ *Dir, err error) {
	d := &Dir{spool: s, parent: root, name: name}
	defer func() {
		if err != nil {
			err = classify(fmt.Errorf("create working directory %q: %w", name, err))
			_ = d.Remove()
		}
	}()
	made, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if d.root, err = root.OpenRoot(name); err != nil {
		return nil, err
	}
	opened, err := d.root.Stat(".")
	if err != nil {
		return nil, err
	}
	if !made.IsDir() || !os.SameFile(made, opened) {
		return nil, errors.New("replaced meanwhile")
	}
	d.fileMode = 0o600
	if s.gid >= 0 {
		d.fileMode = 0o640
		// From a set-group-ID spool directory it has the group already; the units' sandbox knows no chown.
		if owner, ok := opened.Sys().(*syscall.Stat_t); !ok || int(owner.Gid) != s.gid {
			if err := d.root.Chown(".", -1, s.gid); err != nil {
				return nil, err
			}
		}
		// Setgid, so that the workers' files get the group that we can read by.
		if err := d.root.Chmod(".", 0o770|fs.ModeSetgid); err != nil {
			return nil, err
		}
	}
	headers, err := d.create(fileHeaders)
	if err != nil {
		return nil, err
	}
	if err := headers.Close(); err != nil {
		return nil, err
	}
	// A sweep, of another process as well, never finds COMMANDS without its lock.
	const unclaimed = fileCommands + ".new"
	if d.commands, err = d.create(unclaimed); err != nil {
		return nil, err
	}
	if err := claim(d.commands); err != nil {
		return nil, err
	}
	return d, d.root.Rename(unclaimed, fileCommands)
}

// classify marks errors that come from exhausted resources with ErrNoSpace.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrNoSpace) {
		return err
	}
	full := []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EMLINK}
	if slices.ContainsFunc(full, func(e error) bool { return errors.Is(err, e) }) {
		return fmt.Errorf("%w: %w", err, ErrNoSpace)
	}
	return err
}
