// Package daemon is the skeleton of every daemon: the order of start, the end of
// root, what signals mean, the service manager, the staged end and the exit status.
// A program fills in what it does before root is given up and what it does after.
//
// The order is: settings, log, listeners, Open, pid file, drop to the user, proof of
// the drop, Serve, READY=1. The umask is 077 and no core is ever written, since
// there may be mail and passwords in it. The multiplexor, whose command line, log and
// files are MIMEDefang's, begins at the listeners: see Start.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"postern/internal/config"
	"postern/internal/listen"
	"postern/internal/logging"
	"postern/internal/metrics"
	"postern/internal/pidfile"
	"postern/internal/privdrop"
	"postern/internal/safedir"
)

// Program is what a daemon fills in. Name, Settings and Serve must be set.
type Program struct {
	Name        string
	Description string // for --help
	Settings    Settings

	// Commands do something else than serve, if the settings struct has commands
	// (kong's tag cmd). They run after the settings are read, as the user who
	// started the program, and give the exit status.
	Commands map[string]func(stdout, stderr io.Writer) int

	// AsUser names the commands that judge what the user who serves may do, or do it in his directories: when root runs
	// them they become that user.
	AsUser []string

	// Check is part of --check: what cannot be seen in the settings alone, such
	// as files that must be there. It changes nothing.
	Check func() error

	// Directories gives, by the name of the setting, the directories that the program writes to or believes.
	Directories func() map[string]Directory

	// Files gives the files that the user who serves must be able to read, for a reload or when the service manager
	// starts the program as that user. It is for --check.
	Files func() []string

	// Warnings gives what the settings allow that is most likely not meant: --check
	// writes it to standard error, the start logs it. The listeners are nil with
	// --check.
	Warnings func(context.Context, listen.Set) []string

	// Reloads listens to the events at a socket and gives what waits for the next outcome of a reload, as Env.Tell was
	// given it. It is for --reload.
	Reloads func(ctx context.Context, spec string) (outcome func() (string, error), err error)

	// Listeners says what to listen on, once the settings are read.
	Listeners func() []listen.Request

	// Open does what needs root, with the listeners open: keys, files. It must not
	// serve anything yet. Its error is one of the settings. It may add to
	// Env.Listeners what it opens itself.
	Open func(*Env) error

	// Serve works as the configured user. When ctx is cancelled the drain begins:
	// it takes nothing new, ends what it has, and returns. It calls Env.Ready when
	// it answers. After nil the exit status is 0, after a config.Error that of wrong settings.
	Serve func(ctx context.Context, env *Env) error

	// AtOnce has Serve return, though the drain is not over: it takes too long, or a second signal wants it so. Serve is
	// waited for then, but not longer than lastWait. nil: the program ends while Serve goes on.
	AtOnce func()

	// Signals says what each signal does. nil: SIGTERM and SIGINT drain, SIGHUP reloads, SIGUSR2 has another process take
	// over.
	Signals map[os.Signal]Action

	// Sessions says how many there are, for a process that another one has taken over from: it ends with the last one. nil:
	// it ends at once. It is called from the first Ready on.
	Sessions func() int

	// Execs says, once the settings are read, whether the program starts others that may
	// need more rights than it has, such as sendmail. It may be nil.
	Execs func() bool

	ownProcess bool // it has the process for itself, which is not so in tests
}

// Directory is one that a program uses.
type Directory struct {
	// Check is what safedir.Check says of it, which may also belong to the accounts. It is for --check; at the start the
	// directories are looked at when they are opened.
	Check func(also ...safedir.Account) error

	// Write is its path if the user who serves must be able to make files there, once it exists: --check and the start warn
	// of one where he may not. "" for another.
	Write string
}

// Env is what a running program gets from its skeleton.
type Env struct {
	// Log never waits for its reader and has limits for what strangers cause, see package logging.
	Log *slog.Logger

	// Process is what the metrics say of the process; the program adds what else it knows.
	Process metrics.Process

	Listeners listen.Set

	// Hangup gets a value for each signal to reload, which is SIGHUP as a rule; several that come at once are one.
	// When the reload is over, with or without success, Reloaded or Ready must be called.
	Hangup <-chan os.Signal

	// Reread reads the settings again, as at the start, into fresh, which is a zero struct of their type. It returns
	// those of fixed, the settings that are looked at once, that are not what they were.
	Reread func(fresh Settings, fixed []string) (later []string, err error)

	// Reloaded ends a reload: it says in the log, to the service manager and by Tell what went
	// wrong, or which settings have changed that need a restart, and calls Ready.
	Reloaded func(err error, later []string)

	// Tell makes an event of what became of a reload, or of a new process that was to take over. The program may set it,
	// before it calls Ready.
	Tell func(text string)

	// Ready tells the service manager that the program answers. READY=1. It is called when all is there that is needed to
	// answer, just before the listeners are: who was answered may rely on it.
	Ready func()

	// Status tells the service manager, in words, what the program does. STATUS=
	Status func(text string)

	// Pulse is to be read by the loop that reads Hangup: the watchdog asks so whether it still goes round.
	Pulse <-chan struct{}

	// Watchdog names one more thing that the watchdog asks for, beside that loop and those that accept from Listeners:
	// there is no sign of life while answer does not return.
	Watchdog func(name string, answer func())
}

// Std is the outside of a program; the zero value is that of the process.
type Std struct {
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal // instead of those of the process: of who has taken these over, or for tests

	// Ticks are when there is to be a sign of life, instead of what the service manager asked for; for tests.
	Ticks <-chan time.Time
}

// Exit statuses beside those of package config.
const exitFailure = 1

// failure returns the exit status after an error.
func failure(err error) int {
	if config.IsError(err) {
		return config.ExitStatus(err)
	}
	return exitFailure
}

// Run runs a program with the arguments of the process and ends the process.
func Run(p Program) {
	if err := errors.Join(privdrop.Protect(), harden()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: error: %v\n", p.Name, err)
		os.Exit(exitFailure)
	}
	p.ownProcess = true
	os.Exit(Main(p, os.Args[1:], Std{}))
}

// Main runs a program and gives its exit status: 0 after a clean end,
// config.ExitUsage, config.ExitSettings, else 1. Umask, limits and protection of the process are Run's to set.
func Main(p Program, args []string, std Std) int {
	if std.Stdout == nil {
		std.Stdout = os.Stdout
	}
	if std.Stderr == nil {
		std.Stderr = os.Stderr
	}
	notifier := newNotifier(std.Ticks)
	defer notifier.Close()
	result, err := p.parse(p.Settings, args, std.Stdout)
	if err != nil {
		return p.refuse(std.Stderr, err)
	}
	common := p.Settings.common()
	if command, ok := p.Commands[result.Command]; ok {
		if slices.Contains(p.AsUser, result.Command) && p.ownProcess && os.Geteuid() == 0 {
			if err := p.becomeServer(result); err != nil {
				fmt.Fprintf(std.Stderr, "%s: error: %s as the user who serves: %v\n", p.Name, result.Command, err)
				return exitFailure
			}
		}
		return command(std.Stdout, std.Stderr)
	}
	switch {
	case common.Check:
		return p.check(result, std)
	case common.Reload != 0:
		return p.reload(result, std.Stderr)
	}
	if err := common.validate(); err != nil {
		return p.refuse(std.Stderr, err)
	}
	predecessor, err := newPredecessor()
	if err != nil {
		return p.refuse(std.Stderr, err)
	}
	log, queue, err := common.logger(std.Stderr)
	if err != nil {
		fmt.Fprintf(std.Stderr, "%s: error: %v\n", p.Name, err)
		return exitFailure
	}
	defer queue.Close() // what nobody reads is lost
	l := &instance{
		program: p, args: args, common: common, result: result, std: std, notifier: notifier,
		path: ownPath(), predecessor: predecessor,
	}
	l.file, _ = os.Stat(l.path)
	status, err := l.run(log, queue)
	if err != nil {
		l.complain(log, err)
		return failure(err)
	}
	return status
}

// Start is Main for a program that has read its settings and opened its log in its own way, and has set umask, limits
// and protection of the process: it goes from the listeners to the end. It returns the exit status, or why the program
// has not started, or failed, which the caller is to say. Of Settings, those for the user, rights and the drain count.
// There is no Env.Reread, and no process takes over.
func Start(p Program, log *slog.Logger, queue *logging.Queue, std Std) (status int, err error) {
	p.ownProcess = true
	notifier := newNotifier(std.Ticks)
	defer notifier.Close()
	if std.Stderr == nil {
		std.Stderr = os.Stderr
	}
	l := &instance{program: p, common: p.Settings.common(), result: &config.Result{}, std: std, notifier: notifier}
	return l.run(log, queue)
}

func (p *Program) parse(settings Settings, args []string, stdout io.Writer) (*config.Result, error) {
	parser := config.Parser{Program: p.Name, Description: p.Description, Stdout: stdout}
	return parser.Parse(settings, args)
}

// harden sets what holds for the whole process and all its children.
func harden() error {
	syscall.Umask(0o077)
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("set core size: %w", err)
	}
	return nil
}

// refuse says what is wrong with the settings and gives the exit status.
func (p *Program) refuse(stderr io.Writer, err error) int {
	if errors.Is(err, config.ErrDone) {
		return 0
	}
	fmt.Fprintf(stderr, "%s: error: %v\n", p.Name, err)
	status := config.ExitStatus(err)
	if status == config.ExitUsage {
		fmt.Fprintf(stderr, "%s: hint: %s --help lists all flags\n", p.Name, p.Name)
	}
	return status
}

// check is --check.
func (p *Program) check(result *config.Result, std Std) int {
	if err := result.Print(std.Stdout); err != nil {
		fmt.Fprintf(std.Stderr, "%s: error: print settings: %v\n", p.Name, err)
		return exitFailure
	}
	err := p.sound(result, std.Stderr)
	if err == nil && p.Listeners != nil {
		err = listen.CheckServes(p.Listeners(), nil)
	}
	if err != nil {
		fmt.Fprintf(std.Stderr, "%s: error: %v\n", p.Name, err)
		return config.ExitSettings
	}
	for _, text := range p.warnings(result) {
		fmt.Fprintf(std.Stderr, "%s: warning: %s\n", p.Name, text)
	}
	return 0
}

// warnings are those of --check.
func (p *Program) warnings(result *config.Result) (texts []string) {
	if account, err := p.server(result); err == nil {
		_ = privdrop.As(account, func() error {
			texts = p.unwritable()
			return nil
		})
	}
	if p.Warnings != nil {
		texts = append(texts, p.Warnings(context.Background(), nil)...)
	}
	return texts
}

// unwritable says to which directories this process, or thread, may not write, though the user who serves must.
func (p *Program) unwritable() (texts []string) {
	if p.Directories == nil {
		return nil
	}
	dirs, who := p.Directories(), strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	for _, setting := range slices.Sorted(maps.Keys(dirs)) {
		path := dirs[setting].Write
		if path == "" {
			continue
		}
		if err := safedir.MayWrite(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			texts = append(texts, fmt.Sprintf("%s: user %s cannot %v", setting, who, err))
		}
	}
	return texts
}

// sound looks at all that can be wrong, whoever opens the listeners.
func (p *Program) sound(result *config.Result, stderr io.Writer) error {
	if err := p.Settings.common().validate(); err != nil {
		return err
	}
	if err := p.checkDirectories(stderr); err != nil {
		return err
	}
	if p.Check != nil {
		if err := p.Check(); err != nil {
			return err
		}
	}
	return p.checkFiles(result)
}

// checkDirectories looks at the directories of sockets, of the pid file, and of all else that the program writes. One that
// is not there yet is worth a line: something may make it before the start.
func (p *Program) checkDirectories(stderr io.Writer) error {
	common := p.Settings.common()
	errs := make(map[string]error) // by setting
	if p.Listeners != nil {
		requests := p.Listeners()
		if err := listen.CheckSpecs(requests); err != nil {
			return err
		}
		if err := common.ownSockets(requests); err != nil {
			return err
		}
		errs[""] = listen.Check(requests)
	}
	if common.Pidfile != "" {
		errs["pidfile: "] = safedir.Check(filepath.Dir(common.Pidfile), common.Accounts()...)
	}
	if p.Directories != nil {
		for setting, dir := range p.Directories() {
			errs[setting+": "] = dir.Check(common.Accounts()...)
		}
	}
	for _, setting := range slices.Sorted(maps.Keys(errs)) {
		err := errs[setting]
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s%w", setting, err)
		}
		if err != nil {
			fmt.Fprintf(stderr, "%s: warning: %s%v\n", p.Name, setting, err)
		}
	}
	return nil
}

// UnitUser is the account of the units.
const UnitUser = "postern"

// server returns the user who serves: the one of the settings, else that of the units, if there is one.
func (p *Program) server(result *config.Result) (privdrop.Account, error) {
	common := p.Settings.common()
	if result.Source("user") == "default" {
		if account, err := privdrop.Lookup(UnitUser); err == nil {
			return account, nil
		}
	}
	return privdrop.Lookup(common.User)
}

// becomeServer has root become the user who serves, for good.
func (p *Program) becomeServer(result *config.Result) error {
	account, err := p.server(result)
	if err != nil {
		return err
	}
	return privdrop.Become(account)
}

// checkFiles looks whether the user who serves can read what he must. Where that is not known, as nobody has set it and
// there is no unit's, the program may be started with files that root alone can read.
func (p *Program) checkFiles(result *config.Result) error {
	if p.Files == nil {
		return nil
	}
	account, err := p.server(result)
	if err != nil || result.Source("user") == "default" && account.Name != UnitUser {
		return nil
	}
	return privdrop.As(account, func() error {
		for _, name := range p.Files() {
			f, err := os.Open(name)
			if err != nil {
				return fmt.Errorf("user %s, as whom the program serves and reads its files again: %w", account, err)
			}
			f.Close()
		}
		return nil
	})
}

// instance is one run of a program.
type instance struct {
	program  Program
	args     []string
	common   *Common
	result   *config.Result
	std      Std
	notifier *notifier

	path        string       // of the program
	file        os.FileInfo  // at that path when it was started
	predecessor *predecessor // nil, unless we take over

	env     *Env
	pidfile *pidfile.File
	ready   readiness
	readied chan struct{} // closed by the first Ready
	state   state
	reloads reloads
	live    *liveness
	serves  bool // the start is over
}

// run starts the program, serves, and cleans up. It returns the exit status, or why that failed.
func (l *instance) run(log *slog.Logger, queue *logging.Queue) (status int, err error) {
	if l.program.Signals == nil {
		l.program.Signals = usualSignals
	}
	signals := newSignals(l.std.Signals, l.program.Signals)
	defer signals.stop()
	l.live, l.readied = newLiveness(), make(chan struct{})
	l.env = &Env{
		Log: log, Process: metrics.Process{LogDropped: queue.Dropped, State: l.state.text, Reloads: l.reloads.read}, Hangup: signals.reload,
		Ready: l.sayReady, Reread: l.reread, Reloaded: l.reloaded, Status: l.notifier.Status, Pulse: l.live.pulse,
		Watchdog: func(name string, answer func()) { l.live.add(name, func(<-chan struct{}) { answer() }) },
	}
	l.env.Watchdog("lock of the log", func() { queue.Dropped() }) // takes the lock that each line takes
	defer l.ready.stop()
	defer l.cleanUp()
	if err := l.start(); err != nil {
		return 0, err
	}
	l.serves = true
	return l.serve(signals)
}

// start does everything up to the proof that root is given up.
func (l *instance) start() error {
	p, log := &l.program, l.env.Log
	if f := l.result.File; f != "" {
		log.Debug("settings read", "file", f)
	}
	if p.Listeners != nil {
		if err := l.openListeners(p.Listeners()); err != nil {
			return err
		}
	}
	if p.Open != nil {
		if err := p.Open(l.env); err != nil {
			return &config.Error{Err: err}
		}
	}
	l.env.Listeners = l.live.watch(l.env.Listeners)
	if err := l.openPidfile(); err != nil {
		return err
	}
	if err := l.drop(); err != nil {
		return err
	}
	l.warn()
	return nil
}

func (l *instance) openListeners(requests []listen.Request) (err error) {
	if err := l.common.ownSockets(requests); err != nil {
		return err
	}
	if err := listen.CheckSpecs(requests); err != nil {
		return &config.Error{Err: err}
	}
	if l.env.Listeners, err = listen.Open(requests, l.env.Log); err != nil {
		return err
	}
	if err := listen.CheckServes(requests, l.env.Listeners); err != nil {
		return &config.Error{Err: err}
	}
	return nil
}

// unreadable says which files a reload will not be able to read, since root read them at the start.
func (l *instance) unreadable() (texts []string) {
	files := []string{}
	if l.program.Files != nil {
		files = l.program.Files()
	}
	if l.result.File != "" {
		files = append(files, l.result.File)
	}
	for _, name := range files {
		if err := syscall.Access(name, 4); err != nil { // R_OK
			texts = append(texts, fmt.Sprintf("reloads will fail: %s was read as root, and %s may not: %v", name, l.common.User, err))
		}
	}
	return texts
}

// warn logs what the settings allow that is most likely not meant.
func (l *instance) warn() {
	texts := append(l.unreadable(), l.program.unwritable()...)
	if l.program.Warnings != nil {
		texts = append(texts, l.program.Warnings(context.Background(), l.env.Listeners)...)
	}
	for _, text := range texts {
		l.env.Log.Warn(text)
	}
}

// ownSockets gives UNIX sockets that root binds to the user who will serve them.
func (c *Common) ownSockets(requests []listen.Request) error {
	if os.Geteuid() != 0 {
		return nil
	}
	a, err := privdrop.Lookup(c.User)
	if err != nil {
		return err
	}
	for i := range requests {
		if requests[i].Owner == nil {
			requests[i].Owner = &listen.Owner{UID: a.UID, GID: a.GID}
		}
	}
	return nil
}

func (l *instance) drop() error {
	log := l.env.Log
	wasRoot := os.Geteuid() == 0
	if err := privdrop.Drop(l.common.User, l.common.AllowRoot); err != nil {
		return err
	}
	if err := l.protect(); err != nil {
		return err
	}
	switch {
	case os.Geteuid() == 0:
		log.Warn("running as root")
	case wasRoot:
		log.Debug("root given up", "user", l.common.User)
	case l.common.User != "" && l.result.Source("user") != "default":
		if a, err := privdrop.Lookup(l.common.User); err != nil || a.UID != os.Geteuid() {
			log.Warn("not started as root: the user setting has no effect", "user", l.common.User, "uid", os.Geteuid())
		}
	}
	return nil
}

// protect makes sure, now that the ids are the last ones, that nobody but root looks into
// the process, and that nothing it starts gains rights.
func (l *instance) protect() error {
	if !l.program.ownProcess {
		return nil
	}
	if err := privdrop.Protect(); err != nil {
		return err
	}
	if l.common.NoNewPrivs == "no" || l.common.NoNewPrivs == "auto" && l.program.Execs != nil && l.program.Execs() {
		return nil
	}
	return privdrop.NoNewPrivileges()
}

// complain writes an error to the log, and to standard error if the log is
// elsewhere: who starts a program by hand looks there.
func (l *instance) complain(log *slog.Logger, err error) {
	what := "start failed"
	if l.serves {
		what = "failed"
	}
	log.Error(what, "error", err)
	if l.common.logsElsewhere() {
		logging.Say(l.std.Stderr, fmt.Sprintf("%s: error: %v\n", l.program.Name, err))
	}
}

// cleanUp removes what the start made, as far as the rights go.
func (l *instance) cleanUp() {
	if l.isHeir() {
		_ = l.env.Listeners.Release()
		return
	}
	if err := l.env.Listeners.Close(); err != nil {
		l.env.Log.Warn("close listeners", "error", err)
	}
	l.removePidfile()
}

// removePidfile gives up the pid file, once.
func (l *instance) removePidfile() {
	if l.pidfile == nil {
		return
	}
	if err := l.pidfile.Remove(); err != nil {
		level := slog.LevelWarn
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			level = slog.LevelDebug // the usual case once root is given up
		}
		l.env.Log.Log(context.Background(), level, "pid file stays", "error", err)
	}
}
