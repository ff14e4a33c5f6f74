package daemon

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notifyWait bounds how long a message to the service manager may take.
const notifyWait = time.Second

// notifier tells the service manager how the program is doing. sd_notify(3)
// Without a service manager its methods do nothing. It may be used by many
// goroutines.
type notifier struct {
	address  string           // of the service manager's socket; "" for none
	interval time.Duration    // of the watchdog; 0 for none
	ticks    <-chan time.Time // instead of half the interval; for tests

	mu   sync.Mutex
	conn *net.UnixConn // nil without a service manager

	statusMu sync.Mutex
	status   string // last one said
	unsent   bool   // it is still to be sent
}

// newNotifier takes the service manager's variables out of the environment, so
// that no child process gets them, and connects at once: later, as another user or in
// another root directory, it may not be possible. A service manager that cannot be
// reached is none. Ticks are instead of half the watchdog's interval, unless they are nil.
func newNotifier(ticks <-chan time.Time) *notifier {
	n := &notifier{address: os.Getenv("NOTIFY_SOCKET"), ticks: ticks}
	// go-systemd reads NOTIFY_SOCKET for each message; it would be inherited.
	os.Unsetenv("NOTIFY_SOCKET")
	interval, err := systemd.SdWatchdogEnabled(true)
	if err == nil {
		n.interval = interval
	}
	if n.address == "" {
		return n
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.address, Net: "unixgram"})
	if err == nil {
		n.conn = conn
	}
	return n
}

// Close ends the connection; later messages go nowhere.
func (n *notifier) Close() {
	n.send("")
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
}

// Ready says that the start, or a reload, is over.
func (n *notifier) Ready() { n.send(systemd.SdNotifyReady) }

// Reloading says that a reload begins; Ready ends it. The time tells it from
// reloads before. systemd.service(5), Type=notify-reload
func (n *notifier) Reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		n.send(systemd.SdNotifyReloading)
		return
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000))
}

// Stopping says that the program is about to end.
func (n *notifier) Stopping() { n.send(systemd.SdNotifyStopping) }

// env gives the variables of the service manager for a process that takes over.
func (n *notifier) env() []string {
	if n.address == "" {
		return nil
	}
	env := []string{"NOTIFY_SOCKET=" + n.address}
	if n.interval > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(n.interval.Microseconds(), 10))
	}
	return env
}

// MainPID tells the service manager that another process of the service is its main one from now on.
func (n *notifier) MainPID(pid int) { n.send("MAINPID=" + strconv.Itoa(pid)) }

// ExtendTimeout says that what goes on, such as a drain, takes so much longer at most, unless it is said again.
func (n *notifier) ExtendTimeout(d time.Duration) {
	n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Status says in words what the program does. It may be called often, and by who has
// no time: only a new text is sent, and it waits for nobody.
func (n *notifier) Status(text string) {
	text = strings.Join(strings.Fields(text), " ")
	n.statusMu.Lock()
	defer n.statusMu.Unlock()
	if text == n.status {
		return
	}
	n.status = text
	if !n.unsent {
		n.unsent = true
		go n.send("")
	}
}

// takeStatus returns the text that is to be sent.
func (n *notifier) takeStatus() (text string, ok bool) {
	n.statusMu.Lock()
	defer n.statusMu.Unlock()
	ok, n.unsent = n.unsent, false
	return n.status, ok
}

// Watch sends a sign of life at half the interval that the service manager asked for, each time that alive returns,
// until done is closed. It calls late whenever alive has not returned by the time of the next one. Without a watchdog
// it returns at once.
func (n *notifier) Watch(alive, late func(), done <-chan struct{}) {
	ticks := n.ticks
	switch {
	case ticks != nil:
	case n.interval == 0:
		return
	default:
		tick := time.NewTicker(n.interval / 2)
		defer tick.Stop()
		ticks = tick.C
	}
	answers := make(chan struct{}, 1)
	ask := func() { alive(); answers <- struct{}{} } // on a goroutine of its own, which is left behind if it hangs
	asking := true
	go ask()
	for {
		select {
		case <-done:
			return
		case <-answers:
			asking = false
			n.send(systemd.SdNotifyWatchdog)
		case <-ticks:
			if asking {
				late()
				continue
			}
			asking = true
			go ask()
		}
	}
}

// send writes the status, if there is a new one, and then a state, if it is not empty.
func (n *notifier) send(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if text, ok := n.takeStatus(); ok {
		n.write("STATUS=" + text)
	}
	if state != "" {
		n.write(state)
	}
}

// write writes one datagram. That it was lost is nothing the program could do
// something about.
func (n *notifier) write(state string) {
	if n.conn == nil {
		return
	}
	n.conn.SetWriteDeadline(time.Now().Add(notifyWait))
	_, _ = n.conn.Write([]byte(state))
}
