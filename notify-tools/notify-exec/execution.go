package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/internal/notify/listener"
)

// An execution is one run of a command. No shell is involved: an argument stays
// one argument, whatever an event puts into it.
type execution struct {
	command  []string
	event    listener.Event
	free     int
	merged   int
	what     string // for messages: the event, or "undo"
	timeout  time.Duration
	givenUp  chan struct{} // closed when it is to end because of --undo
	out, log io.Writer
	done     func(error) // called by the engine; nil for undo itself
}

// killDelay is how long a command that is to end has after SIGTERM.
const killDelay = 2 * time.Second

var (
	errTooLong = errors.New("took too long and was ended")
	errGivenUp = errors.New("was ended because of --undo")
)

// giveUp has run end the command.
func (x *execution) giveUp() {
	select {
	case <-x.givenUp:
	default:
		close(x.givenUp)
	}
}

// run runs the command in a process group of its own and waits for it.
func (x *execution) run() error {
	args := x.arguments()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), x.environment()...)
	cmd.Stdout, cmd.Stderr = x.out, x.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for a child that keeps our output open
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var late <-chan time.Time
	if x.timeout > 0 {
		late = time.After(x.timeout)
	}
	var why error
	select {
	case err := <-ended:
		return err
	case <-late:
		why = errTooLong
	case <-x.givenUp:
		why = errGivenUp
	}
	endGroup(cmd.Process.Pid)
	<-ended
	return why
}

// endGroup ends a process group: not only its leader, as what the leader has started may be what has an effect.
func endGroup(id int) {
	syscall.Kill(-id, syscall.SIGTERM)
	for by := time.Now().Add(killDelay); time.Now().Before(by) && syscall.Kill(-id, 0) == nil; {
		time.Sleep(10 * time.Millisecond)
	}
	syscall.Kill(-id, syscall.SIGKILL)
}

var placeholder = regexp.MustCompile(`\{(type|text|free|worker|source|seq)?\}`)

// arguments are the command with its placeholders filled in.
func (x *execution) arguments() []string {
	v := x.values()
	fill := func(p string) string {
		if p == "{}" {
			return v["EVENT"]
		}
		return v[strings.ToUpper(p[1:len(p)-1])]
	}
	args := make([]string, len(x.command))
	for i, a := range x.command {
		args[i] = a
		if i > 0 { // what is run is never up to an event
			args[i] = placeholder.ReplaceAllStringFunc(a, fill)
		}
	}
	return args
}

func (x *execution) environment() []string {
	var env []string
	for k, v := range x.values() {
		env = append(env, "POSTERN_"+k+"="+v)
	}
	return env
}

// values are what a command may know of the event. A NUL byte, which neither an
// argument nor a variable can hold, is written \x00.
func (x *execution) values() map[string]string {
	ev := &x.event
	v := map[string]string{
		"KIND": ev.Kind.String(), "SOURCE": ev.Source, "EVENT": ev.Line(), "TEXT": ev.Text,
		"TYPE": "", "FREE": "", "WORKER": "", "SEQ": "", "TIME": "", "MERGED": strconv.Itoa(x.merged),
	}
	if ev.Letter == 0 {
		v["KIND"], v["EVENT"] = "undo", ""
	} else {
		v["TYPE"] = string(ev.Letter)
		v["TIME"] = fmt.Sprintf("%d.%06d", ev.Time.Unix(), ev.Time.Nanosecond()/1000)
	}
	if x.free >= 0 {
		v["FREE"] = strconv.Itoa(x.free)
	}
	if n := ev.Worker(); n >= 0 {
		v["WORKER"] = strconv.Itoa(n)
	}
	if ev.Seq > 0 {
		v["SEQ"] = strconv.FormatUint(ev.Seq, 10)
	}
	for k, s := range v {
		v[k] = strings.ReplaceAll(s, "\x00", `\x00`)
	}
	return v
}
