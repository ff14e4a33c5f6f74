package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/listen"
	"postern/internal/logging"
	"postern/internal/notify/hub"
	"postern/multiplexor/pool"
)

const (
	// ourName is what the program is called, and theirs the name under which it
	// behaves as the original did in all that has a choice.
	ourName      = "multiplexor"
	originalName = "mimedefang-multiplexor"

	// originalVersion is what the original's clients are told under its name.
	originalVersion = "3.7.1"
)

// number is an integer as the original reads it: "10abc" is 10. It fits into 32 bits.
type number int

// UnmarshalText reads a leading decimal integer.
func (n *number) UnmarshalText(text []byte) error {
	v, ok := leadingInt(string(text))
	if !ok {
		return fmt.Errorf("expected a number but got %q", text)
	}
	*n = number(v)
	return nil
}

// seconds is a time: a number of seconds as the original reads it, or a number
// with a unit (90s, 2m, 500ms). It is never more than maxSeconds.
type seconds time.Duration

// maxSeconds is the longest time, 68 years.
const maxSeconds = seconds(math.MaxInt32 * time.Second)

// UnmarshalText reads the text of a setting. A unit that is none is an error: to take
// 10min for ten seconds would be worse.
func (s *seconds) UnmarshalText(text []byte) error {
	t := string(text)
	v, ok := leadingInt(t)
	switch unit := strings.TrimLeft(t, " \t+-.0123456789"); {
	case unit != "" && strings.Contains("smhdwµnu", unit[:1]):
		d, err := time.ParseDuration(t)
		if err != nil {
			return fmt.Errorf("expected seconds, or a time such as 90s or 2m, but got %q", text)
		}
		*s = min(seconds(d), maxSeconds)
	case !ok:
		return fmt.Errorf("expected seconds but got %q", text)
	default:
		*s = seconds(time.Duration(v) * time.Second)
	}
	return nil
}

// String returns seconds as the settings file takes them.
func (s seconds) String() string {
	if d := time.Duration(s); d%time.Second != 0 {
		return d.String()
	}
	return strconv.FormatInt(int64(time.Duration(s)/time.Second), 10)
}

// settings is every setting once. The short letters are the original's.
type settings struct {
	config.File
	hub.Access
	listen.Rights

	Spool    string   `short:"z" help:"Directory to work in; relative paths of sockets and files are relative to it." placeholder:"DIR" default:"${spool}"`
	Requests []string `short:"s" help:"Sockets for requests." placeholder:"SPEC" default:"${requests}"`
	Status   []string `short:"a" help:"Sockets for status requests only, open to everybody." placeholder:"SPEC"`
	Map      []string `short:"N" help:"Sockets for Sendmail's socket map." placeholder:"SPEC"`
	Notify   []string `short:"O" help:"Sockets for listeners of events." placeholder:"SPEC"`
	Metrics  []string `help:"Sockets for metrics." placeholder:"SPEC"`

	RequestUsers []string `name:"request-users" sep:"none" placeholder:"NAME" help:"User who may use UNIX sockets for requests and maps; may be given several times. Default: all that can connect."`
	StatusUsers  []string `name:"status-users" sep:"none" placeholder:"NAME" help:"User who may use UNIX sockets for status requests; may be given several times. Default: all that can connect."`

	Backlog number `short:"I" help:"Connections that may wait to be accepted; 0 for the default." placeholder:"N" default:"0"`
	Group   bool   `name:"group-access" short:"G" help:"Let the group use the sockets and read the files."`

	Worker string `short:"f" help:"Program that workers run; absolute." placeholder:"FILE" default:"${worker}"`
	Filter string `short:"F" help:"File the worker program is told to load (-f FILE)." placeholder:"FILE"`
	Pipe   bool   `name:"status-pipe" short:"Z" help:"Give workers a pipe, descriptor 3, for texts that tell what they are doing."`
	Fork   bool   `name:"fork-server" short:"E" help:"Load the filter once and fork each worker from that."`
	MaxAS  number `name:"max-worker-memory" short:"M" help:"Limit of a worker's address space in kilobytes; 0 for none." placeholder:"KB" default:"0"`
	MaxRSS number `name:"max-worker-rss" short:"R" help:"Memory in kilobytes above which a worker is replaced; 0 for none." placeholder:"KB" default:"0"`

	Min            number  `name:"min-workers" short:"m" help:"Workers to keep running." placeholder:"N" default:"1"`
	Max            number  `name:"max-workers" short:"x" help:"Workers at most." placeholder:"N" default:"2"`
	MaxRequests    number  `name:"max-requests" short:"r" help:"Requests after which a worker is replaced." placeholder:"N" default:"500"`
	Jitter         number  `name:"max-requests-jitter" help:"Percent by which max-requests is lowered at random for each worker." placeholder:"PERCENT" default:"${jitter}"`
	MaxLifetime    seconds `name:"max-lifetime" short:"V" help:"Age after the first request at which a worker is replaced; 0 for none." placeholder:"SECONDS" default:"0"`
	Idle           seconds `name:"max-idle-time" short:"i" help:"Time without a request after which a worker above the minimum is ended." placeholder:"SECONDS" default:"300"`
	Busy           seconds `name:"busy-timeout" short:"b" help:"Time a worker has for an answer." placeholder:"SECONDS" default:"120"`
	Client         seconds `name:"client-timeout" short:"c" help:"Time for a request to come in or a reply to go out." placeholder:"SECONDS" default:"10"`
	Interval       seconds `name:"start-interval" short:"w" help:"Time between starts that bring the pool to its minimum; at least 1." placeholder:"SECONDS" default:"3"`
	Gap            seconds `name:"min-start-gap" short:"W" help:"Time between any two starts; 0 for none." placeholder:"SECONDS" default:"0"`
	Reload         string  `enum:"two-generation,classic" help:"What a reread does: two-generation starts workers with the new rules before the old ones go; classic ends idle ones at once." placeholder:"MODE" default:"${reload}"`
	ReloadFailures number  `name:"reload-failures" help:"New workers that may die before a reread is given up." placeholder:"N" default:"3"`
	ReloadTimeout  seconds `name:"reload-timeout" help:"Time a worker with new rules has for its first answer." placeholder:"SECONDS" default:"60"`
	QueueSize      number  `name:"queue-size" short:"q" help:"Requests that may wait for a worker." placeholder:"N" default:"${queue}"`
	QueueTime      seconds `name:"queue-timeout" short:"Q" help:"Time a request may wait for a worker; 1 to 600." placeholder:"SECONDS" default:"30"`
	PerDomain      number  `name:"max-recipok-per-domain" short:"y" help:"Concurrent recipok requests for one domain; 0 for any number." placeholder:"N" default:"0"`
	TickTime       seconds `name:"tick-interval" short:"X" help:"Time between tick requests; 0 for none." placeholder:"SECONDS" default:"0"`
	Ticks          number  `name:"tick-types" short:"P" help:"Kinds of tick requests, which run at the same time; 1 to 30." placeholder:"N" default:"1"`
	Autoscale      bool    `short:"k" help:"Start and end workers by the share of busy ones."`

	ScanBelow   bool   `name:"scan-below-spool" help:"Refuse scans of directories that are not below the spool directory." default:"${scanbelow}"`
	PoisonLimit number `name:"poison-limit" help:"Workers that the scan of one working directory may end before it is refused; 0 for any number." placeholder:"N" default:"${poison}"`
	KeepPoison  string `name:"keep-poison" help:"Directory to which such a working directory is copied." placeholder:"DIR"`

	MaxConnections number       `help:"Connections on the request sockets at a time." placeholder:"N" default:"20000"`
	MaxRequestSize config.Bytes `name:"max-request-size" help:"Longest request line." placeholder:"BYTES" default:"16k"`
	MaxAnswerSize  config.Bytes `name:"max-answer-size" help:"Longest answer of a worker." placeholder:"BYTES" default:"64k"`

	NoNewPrivs bool   `name:"no-new-privs" help:"Give programs that are set-uid or set-gid no rights when workers start them." default:"${nnp}"`
	User       string `short:"U" help:"User to run as." placeholder:"USER"`
	Foreground bool   `short:"D" help:"Stay in the foreground."`
	Pidfile    string `short:"p" help:"File for the process id." placeholder:"FILE"`
	Lockfile   string `short:"o" help:"File to lock against a second instance; by default that of --pidfile with .lock." placeholder:"FILE"`

	LogEvents      bool    `name:"log-events" short:"l" help:"Log starts and ends of workers as well as what goes wrong with them."`
	LogScheduling  bool    `name:"log-scheduling" short:"A" help:"Log which worker is chosen for each request."`
	StatusInterval seconds `name:"log-status-interval" short:"L" help:"Time between log lines of the pool's state; 0 for none, else at least 5." placeholder:"SECONDS" default:"0"`
	DebugEvents    bool    `name:"debug-events" short:"d" hidden:"" help:"Taken and ignored."`
	Facility       string  `name:"syslog-facility" short:"S" help:"Facility for syslog and journal." placeholder:"NAME" default:"mail"`
	Tag            string  `name:"syslog-tag" short:"Y" help:"Name of the program in syslog and journal." placeholder:"TEXT" default:"${program}"`
	Log            string  `help:"Where the log goes: stderr, journal, syslog, or auto (the journal if standard error is connected to it, syslog in the background, else stderr)." enum:"auto,stderr,journal,syslog" placeholder:"TARGET" default:"${log}"`
	LogLevel       string  `help:"Least level that is logged: debug, info, notice, warn or error." enum:"debug,info,notice,warn,error" placeholder:"LEVEL" default:"${level}"`
	LogFormat      string  `help:"Form of log records on standard error: text or json." enum:"text,json" placeholder:"FORMAT" default:"text"`
	StatsFile      string  `name:"stats-file" short:"t" help:"File for a line on each start, scan and end." placeholder:"FILE"`
	StatsSyslog    bool    `name:"stats-syslog" short:"T" help:"Put those lines into the log."`
	StatsFlush     bool    `name:"stats-flush" short:"u" help:"Write each line of the statistics file at once."`

	tooFew  bool   // the maximum is below the minimum
	program string // the name it was started under

	changed func() ([]string, error) // gives the settings that are not what they were; nil if that cannot be known
}

// likeOriginal reports whether the program was started under the original's name.
func (s *settings) likeOriginal() bool { return s.program == originalName }

// parser returns the reader of settings for the name in argv[0].
func parser(program string) *config.Parser {
	p := &config.Parser{
		Program:     ourName,
		Description: "Starts and feeds worker processes that answer requests of mail programs.",
		Shorts:      map[string]rune{"version": 'v'},
		Vars: map[string]string{
			"spool": "/var/spool/postern", "requests": "/run/postern/multiplexor.sock", "worker": "/usr/libexec/postern/filter-basic",
			"queue": "1024", "jitter": "10", "reload": "two-generation", "poison": "2", "scanbelow": "yes", "nnp": "yes", "log": "auto", "level": "info", "program": ourName,
		},
	}
	if program == originalName {
		// Nothing but the command line counts: the original knew no settings file.
		p.Program, p.DefaultFile = originalName, "/nonexistent"
		p.Vars = map[string]string{
			"spool": "/var/spool/MIMEDefang", "requests": "", "worker": originalWorker(),
			"queue": "0", "jitter": "0", "reload": "classic", "poison": "0", "scanbelow": "no", "nnp": "no", "log": "syslog", "level": "debug", "program": originalName,
		}
	}
	return p
}

// originalWorker returns the filter program of MIMEDefang, which may be in either place.
func originalWorker() string {
	const usual, local = "/usr/bin/mimedefang.pl", "/usr/local/bin/mimedefang.pl"
	if !exists(usual) && exists(local) {
		return local
	}
	return usual
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

const (
	originalMaxQueue = 128
	maxQueue         = 1 << 20

	// maxWorkers bounds the slots: each takes memory, with or without a process.
	maxWorkers = 1 << 16
)

// Validate brings the values into their bounds, as the original does, and refuses
// what it refuses.
func (s *settings) Validate() error {
	if !filepath.IsAbs(s.Worker) {
		return &config.Error{Key: "worker", Err: fmt.Errorf("%q is not an absolute path", s.Worker)}
	}
	if s.likeOriginal() && s.QueueSize > originalMaxQueue {
		return &config.Error{Key: "queue-size", Err: fmt.Errorf("Request queue size %d too big (%d max)", s.QueueSize, originalMaxQueue)}
	}
	if !s.likeOriginal() && (s.QueueSize < 0 || s.QueueSize > maxQueue) {
		return &config.Error{Key: "queue-size", Err: fmt.Errorf("%d is not between 0 and %d", s.QueueSize, maxQueue)}
	}
	for _, line := range []struct {
		key  string
		size config.Bytes
	}{{"max-request-size", s.MaxRequestSize}, {"max-answer-size", s.MaxAnswerSize}} {
		if line.size < 1024 || line.size > maxLineSize {
			return &config.Error{Key: line.key, Err: fmt.Errorf("%v is not between 1k and %v", line.size, config.Bytes(maxLineSize))}
		}
	}
	if _, err := logging.Facility(s.Facility); err != nil {
		return &config.Error{Key: "syslog-facility", Err: fmt.Errorf("Unknown syslog facility %s", s.Facility)}
	}
	if s.MaxConnections < 1 {
		return &config.Error{Key: "max-connections", Err: fmt.Errorf("%d is not positive", s.MaxConnections)}
	}
	s.clamp()
	return nil
}

// maxLineSize bounds the settings for lines: each connection may hold that much.
const maxLineSize = 16 << 20

// clamp brings values into bounds without a word, as the original does.
func (s *settings) clamp() {
	s.tooFew = s.Min > s.Max
	s.Max = min(max(s.Max, 1), maxWorkers)
	s.Min = min(max(s.Min, 1), s.Max)
	s.MaxRequests = max(s.MaxRequests, 1)
	s.Jitter = min(max(s.Jitter, 0), 90)
	s.MaxAS, s.MaxRSS = max(s.MaxAS, 0), max(s.MaxRSS, 0)
	s.QueueSize = max(s.QueueSize, 0)
	s.Ticks = min(max(s.Ticks, 1), 30)
	if s.PerDomain < 0 || s.PerDomain >= s.Max {
		s.PerDomain = 0
	}
	atLeast := func(v *seconds, least time.Duration) { *v = max(*v, seconds(least)) }
	least := time.Second
	if s.likeOriginal() {
		least = 10 * time.Second
	}
	atLeast(&s.Idle, least)
	atLeast(&s.Busy, least)
	atLeast(&s.Client, least)
	atLeast(&s.Interval, time.Second)
	atLeast(&s.Gap, 0)
	atLeast(&s.MaxLifetime, 0)
	atLeast(&s.TickTime, 0)
	atLeast(&s.StatusInterval, 0)
	if s.StatusInterval > 0 {
		atLeast(&s.StatusInterval, 5*time.Second)
	}
	s.QueueTime = min(max(s.QueueTime, seconds(time.Second)), seconds(600*time.Second))
	if len(s.Requests) == 0 || len(s.Requests) == 1 && s.Requests[0] == "" {
		s.Requests = []string{filepath.Join(s.Spool, "mimedefang-multiplexor.sock")}
	}
	if s.Pidfile != "" && s.Lockfile == "" {
		s.Lockfile = s.Pidfile + ".lock"
	}
	switch {
	case s.Backlog > 0 && s.likeOriginal():
		s.Backlog = min(max(s.Backlog, 5), 200)
	case s.Backlog <= 0:
		s.Backlog = 0 // as many as the system allows: a full backlog only makes clients fail
	}
}

// limits returns what the pool needs to know.
func (s *settings) limits() pool.Limits {
	return pool.Limits{
		Min: int(s.Min), Max: int(s.Max), MaxRequests: int(s.MaxRequests), Jitter: int(s.Jitter),
		MaxLifetime: time.Duration(s.MaxLifetime), IdleTimeout: time.Duration(s.Idle), BusyTimeout: time.Duration(s.Busy),
		ClientTimeout: time.Duration(s.Client), StartInterval: time.Duration(s.Interval), MinStartGap: time.Duration(s.Gap),
		QueueSize: int(s.QueueSize), QueueTimeout: time.Duration(s.QueueTime), MaxAnswer: int(s.MaxAnswerSize), PerDomain: int(s.PerDomain),
		PoisonLimit: int(max(s.PoisonLimit, 0)), MaxResident: int64(s.MaxRSS) << 10,
		ClassicReload: s.Reload == "classic", ReloadFailures: int(max(s.ReloadFailures, 1)), ReloadTimeout: max(time.Duration(s.ReloadTimeout), time.Second),
		Original: s.likeOriginal(), LogStderr: s.LogEvents || !s.likeOriginal(),
		LogEvents: s.LogEvents, LogScheduling: s.LogScheduling, StatusInterval: time.Duration(s.StatusInterval),
	}
}
