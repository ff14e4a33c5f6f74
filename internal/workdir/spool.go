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
	opened  *place
	counter uint32
	started bool
	left    chan string
}

// place is the spool directory, opened.
type place struct {
	root *os.Root
	dir  *safedir.Dir // the same one
	gid  int          // the workers' group, or -1
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
	_, err := s.place(nil)
	return err
}

// place returns the open spool directory, and opens it if need be. gone is one that turned out to be removed: unless
// somebody else has done so since, the one that was made in its stead is opened. The working directories in gone are
// used on; the garbage collector closes it behind the last one.
func (s *Spool) place(gone *place) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == gone {
		s.opened = nil
	}
	if s.opened == nil {
		opened, err := s.open()
		if err != nil {
			return nil, err
		}
		s.opened = opened
	}
	return s.opened, nil
}

func (s *Spool) open() (*place, error) {
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
	dir, err := safedir.OpenDir(root)
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return &place{root, dir, gid}, nil
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

// Close closes the spool directory. Working directories that are still open can be used, but not removed.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.opened
	if p == nil {
		return nil
	}
	s.opened = nil
	return errors.Join(p.root.Close(), p.dir.Close())
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
	in, err := s.place(nil)
	if err != nil {
		return nil, classify(err)
	}
	name := dirPrefix + qid
	for try := 0; ; try++ {
		err = in.dir.Mkdir(name, 0o700)
		switch {
		case err == nil:
			return s.fill(in, name)
		case errors.Is(err, fs.ErrExist) && try < 5:
			name = dirPrefix + qid + "." + strings.ToLower(rand.Text()[:6])
		case errors.Is(err, fs.ErrNotExist) && try == 0:
			if in, err = s.place(in); err != nil {
				return nil, classify(err)
			}
		default:
			return nil, classify(fmt.Errorf("create working directory: %w", err))
		}
	}
}

// fill opens a new directory, gives it its rights and its first files.
func (s *Spool) fill(in *place, name string) (_ *Dir, err error) {
	d := &Dir{spool: s, in: in, name: name}
	defer func() {
		if err != nil {
			err = classify(fmt.Errorf("create working directory %q: %w", name, err))
			_ = d.Remove()
		}
	}()
	var opened fs.FileInfo
	if d.dir, opened, err = in.dir.Dir(name); err != nil {
		return nil, err
	}
	if uid, ok := safedir.Owner(opened); !ok || uid != uint32(os.Geteuid()) {
		return nil, errors.New("does not belong to us")
	}
	// Before there are files in it: a sweep, of another process as well, finds none that nobody has locked.
	if err := claim(d.dir.File()); err != nil {
		return nil, err
	}
	d.fileMode = 0o600
	if gid := in.gid; gid >= 0 {
		d.fileMode = 0o640
		// From a set-group-ID spool directory it has the group already; the units' sandbox knows no chown.
		if owner, ok := opened.Sys().(*syscall.Stat_t); !ok || int(owner.Gid) != gid {
			if err := d.dir.File().Chown(-1, gid); err != nil {
				return nil, err
			}
		}
		// Setgid, so that the workers' files get the group that we can read by.
		if err := d.dir.File().Chmod(0o770 | fs.ModeSetgid); err != nil {
			return nil, err
		}
	}
	if d.headers, err = d.dir.Create(fileHeaders, d.fileMode); err != nil {
		return nil, err
	}
	d.commands, err = d.dir.Create(fileCommands, d.fileMode)
	return d, err
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
