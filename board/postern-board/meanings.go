package main

// meanings says what the names mean that gates and failures are counted under. smtp-proxy(8), section Gates
var meanings = map[string]string{
	"sessions":         "There were too many sessions in all.",
	"proxy-header":     "The PROXY header of the load balancer was missing or malformed.",
	"address":          "There were too many sessions from that address.",
	"rate":             "There were too many new sessions a second from that address.",
	"tls":              "The TLS handshake failed.",
	"refuse-file":      "The administrator has closed the gate with a file.",
	"load":             "The load was too high.",
	"pressure":         "Memory, processors or disks were short.",
	"workers":          "No worker was free and the queue was full, or the multiplexor did not answer.",
	"stamp":            "The client had not fetched mail before, or not for this sender.",
	"relay":            "The recipient is not ours, and the client may not relay.",
	"early-talker":     "The client talked before the greeting.",
	"filter":           "The filter said so.",
	"logins":           "There were too many failed logins from that address.",
	"errors":           "The client made too many errors.",
	"refusals":         "The client was refused too often.",
	"junk":             "The client sent too many commands without a message.",
	"transactions":     "The client sent too many messages in one session.",
	"timeout":          "The client took too long.",
	"line":             "The client sent a line, or a message, without end.",
	"drain":            "The proxy was about to end.",
	"bare-newline":     "The message had bare line feeds, with which another one could be smuggled in.",
	"synchronization":  "The client sent more than it may before it has the answer.",
	"foreign-protocol": "What the client spoke is not SMTP.",
}
