package httpapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// stopTime is how long answers under way may take when a server stops.
const stopTime = 5 * time.Second

// New returns the handler of every endpoint. status is asked at each request and must be
// quick. Who does not say who it is learns whether the process lives and is ready, for
// probes, and no more.
func New(status func() Status, metrics prometheus.Gatherer, access *Access) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		s := status()
		code := http.StatusOK
		if !s.Ready {
			code = http.StatusServiceUnavailable
		}
		said := map[string]any{"ready": s.Ready}
		if access.Known(r) {
			said["causes"] = append([]string{}, s.Causes...)
		}
		answer(w, code, said)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, status())
	})
	return access.Guard(mux, "/livez", "/readyz")
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the caller has gone: nobody is left to tell
}

// Listen opens an address: of loopback, or any if access is guarded.
func Listen(ctx context.Context, what string, access *Access) (net.Listener, error) {
	host, _, err := net.SplitHostPort(access.Address)
	if err == nil && !loopback(host) && !access.Guarded() {
		err = errors.New("not a loopback address, and neither TLS nor who may ask is set")
	}
	var l net.Listener
	if err == nil {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", access.Address)
	}
	if err != nil {
		return nil, &listenError{what, access.Address, err}
	}
	if access.Certificate != nil {
		return tls.NewListener(l, access.Certificate.server()), nil
	}
	return l, nil
}

// listenError is an address that cannot be had.
type listenError struct {
	what, address string
	err           error
}

// Error implements error.
func (e *listenError) Error() string {
	return fmt.Sprintf("listen for %s on %s: %v", e.what, e.address, e.err)
}

// Unwrap gives the cause.
func (e *listenError) Unwrap() error { return e.err }

// Fatal says that trying again will not help.
func (e *listenError) Fatal() bool { return true }

// Environment says that the cause is around the process, not in it.
func (e *listenError) Environment() bool { return true }

// Hint says what to do.
func (e *listenError) Hint() string {
	return "another process may have the port: stop it, or choose another address in the configuration"
}

// Serve answers on l until ctx ends, then lets answers under way finish for a moment.
// It closes l.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		_ = s.Close() // what is left takes longer than it may
	}
	<-failed
	return nil
}
