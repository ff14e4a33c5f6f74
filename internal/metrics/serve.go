package metrics

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postern/internal/connlimit"
)

// Limits of the listener: whoever can reach it may ask, but neither stay nor
// come in numbers.
const (
	maxConnections = 32 // each has one request at a time
	maxHeader      = 8 << 10
	readTimeout    = 5 * time.Second
	writeTimeout   = 10 * time.Second
	idleTimeout    = time.Minute
)

// Path is where the metrics are, and HealthPath where a load balancer asks.
const (
	Path       = "/metrics"
	HealthPath = "/health"
)

// Serve answers GET requests for Path and HealthPath until l is closed, which is no error.
// There is nothing else to get, and nothing to change.
func (r *Registry) Serve(l net.Listener) error {
	// No limit of requests here: readers that are slow would use it up.
	metrics := promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{})
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, metrics) // HEAD too
	mux.HandleFunc("GET "+HealthPath, r.health)
	server := &http.Server{
		Handler:        mux,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0), // strangers' mistakes
	}
	defer server.Close() // ends connections that are still open
	err := server.Serve(connlimit.Listen(l, maxConnections))
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
