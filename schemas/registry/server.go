package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	defaultMaxBody      = 4 << 20
	defaultWriteTimeout = 30 * time.Second
)

// ServerConfig tunes a Server. Its zero value serves.
type ServerConfig struct {
	ClusterID       string        // told at /v1/metadata/id as the Kafka cluster's id
	Version, Commit string        // told at /v1/metadata/version
	MaxBody         int64         // bytes of a request's body; 0: 4 MiB
	Timeout         time.Duration // for one write with its reading back; 0: 30 s
	Logger          *slog.Logger  // nil: logs nothing
}

// Server serves the registry's API over a Log, of which it is the only writer. It is an
// http.Handler and nothing else: listening, TLS and authentication are its caller's. It
// starts no goroutines.
type Server struct {
	cfg    ServerConfig
	routes []route
	origin *http.CrossOriginProtection

	mu    sync.RWMutex // guards state
	state *state

	writing chan struct{} // holds one token; who has it may use the fields below and change state
	log     Log
	next    int64 // offset from which the log has not been read
	unsure  bool  // an Append's outcome is unknown and the log has not been read since

	done     chan struct{}
	fenceErr error // set before done is closed
}

// NewServer fences log, reads it to its end, and serves from then on. It fails on a log
// that it cannot make sense of, and names the record.
func NewServer(ctx context.Context, log Log, cfg ServerConfig) (*Server, error) {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultWriteTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: log, origin: http.NewCrossOriginProtection(), state: newState(),
		writing: make(chan struct{}, 1), done: make(chan struct{})}
	s.routes = s.table()
	if err := log.Fence(ctx); err != nil {
		return nil, fmt.Errorf("become the writer of the schemas log: %w", err)
	}
	if _, err := s.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("read the schemas log: %w", err)
	}
	if n := s.state.conflict; n > 0 {
		cfg.Logger.Warn("schemas left out because their id stands for another schema", "count", n)
	}
	return s, nil
}

// Done is closed when the server has found that another has taken its log over. From then
// on it answers reads only, from what it knew; Err says why.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns nil until Done is closed, and an error that wraps ErrFenced afterwards.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.fenceErr
	default:
		return nil
	}
}

// ServeHTTP answers one request of the registry's API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	media := negotiate(r.Header.Values("Accept"))
	answer, err := s.answer(w, r, media)
	status := http.StatusOK
	if err != nil {
		f := s.faultOf(r, err)
		status, answer = f.status(), map[string]any{"error_code": f.code, "message": f.message}
	}
	body, ok := answer.(bareText)
	if !ok {
		if body, err = marshal(answer); err != nil {
			s.cfg.Logger.Error("write registry answer", "path", r.URL.Path, "error", err)
			status, body = http.StatusInternalServerError, ""
		}
	}
	if media == "" {
		media = mediaType
	}
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that has gone away cannot be told, and nobody else need be.
	_, _ = io.WriteString(w, string(body))
}

// bareText is an answer that is sent as it is.
type bareText string

func marshal(answer any) (bareText, error) {
	b, err := json.Marshal(answer)
	return bareText(b), err
}

// answer finds the route and takes it.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, media string) (any, error) {
	if err := s.origin.Check(r); err != nil {
		return nil, faultf(http.StatusForbidden, "request comes from another site: %v", err)
	}
	serve, err := s.find(r)
	if err != nil {
		return nil, err
	}
	if media == "" {
		return nil, faultf(http.StatusNotAcceptable, "none of the content types in Accept can be served")
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.cfg.MaxBody)
	return serve(r)
}

// faultOf makes the answer for an error; one that is no refusal is the server's own, and
// its text is logged, not told.
func (s *Server) faultOf(r *http.Request, err error) *fault {
	var f *fault
	if !errors.As(err, &f) {
		f = faultf(codeStore, "the registry could not serve the request; see its log")
	}
	if f.status() >= 500 {
		s.cfg.Logger.Error("serve registry request", "method", r.Method, "path", r.URL.Path, "code", f.code, "error", err)
	}
	return f
}

// decodeBody reads the request's JSON body into v.
func decodeBody(r *http.Request, v any) error {
	if !jsonBody(r.Header) {
		return faultf(http.StatusUnsupportedMediaType, "content type or encoding of the request is not supported; send %s", mediaType)
	}
	b, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return faultf(codeSchemaTooLarge, "the request's body is larger than %d bytes", tooLarge.Limit)
	case err != nil:
		return faultf(http.StatusBadRequest, "the request's body cannot be read")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return faultf(http.StatusBadRequest, "the request's body is not the JSON that is wanted here: %v", err)
	}
	return nil
}
