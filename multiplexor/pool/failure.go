package pool

import "strings"

// Failure is why a request got no answer of a worker.
type Failure int8

const (
	FailNoFree     Failure = iota // every worker is busy
	FailStart                     // a process could not be started
	FailQueue                     // waited too long
	FailTalk                      // the line could not be given to the worker
	FailDied                      // the worker went away
	FailTimeout                   // busy timeout
	FailOverloaded                // busy timeout while many workers were busy
	FailDomain                    // too many recipients of one domain
	FailAnswer                    // an answer without end, or bytes after it
	FailPoison                    // killed too many workers
	FailShutdown                  // the multiplexor is terminating
	Failures                      // how many there are
)

// failureTexts are the replies to requests that got no answer.
var failureTexts = [Failures]string{
	FailNoFree:     "error: No free workers\n",
	FailStart:      "error: Unable to activate worker\n",
	FailQueue:      "error: Queued request timed out\n",
	FailTalk:       "error: Error talking to worker process\n",
	FailDied:       "ERR No response from worker\n",
	FailTimeout:    "ERR Filter timed out - check filter rules or system load\n",
	FailOverloaded: "ERR Filter timed out - system may be overloaded (consider increasing busy timeout)\n",
	FailDomain:     "ok -1 Per-domain%20recipok%20limit%20hit;%20please%20try%20again%20later\n",
	FailAnswer:     "ERR Worker broke the protocol\n",
	FailPoison:     "ERR This message has ended too many workers\n",
	FailShutdown:   "error: Multiplexor is terminating\n",
}

// Text is the reply to a request.
func (f Failure) Text() string { return failureTexts[f] }

// FailureText is the reply to a request that got no answer. Where a broken worker is
// the reason, it says what is wrong with that.
func (p *Pool) FailureText(why Failure) string {
	text := why.Text()
	if p.limits.Original {
		return text
	}
	cause := ""
	switch why {
	case FailDied:
		cause = p.cause
	case FailStart, FailQueue:
		cause = p.fault.text
	case FailNoFree:
		if p.working == 0 {
			cause = p.fault.text
		}
	}
	if cause == "" {
		return text
	}
	return strings.TrimSuffix(text, "\n") + ": " + Printable(cause) + "\n"
}
