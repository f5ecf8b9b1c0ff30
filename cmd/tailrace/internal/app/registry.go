package app

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/schemas/registry"
)

// NewRegistry returns a client of the configured registry, which must run: it starts none
// and connects to nothing yet.
func NewRegistry(r config.Registry) (*registry.Client, error) {
	if r.URL != "" {
		return registry.NewClient(registry.ClientConfig{URL: r.URL, User: r.User, Password: r.Password.Reveal()})
	}
	if _, port, _ := net.SplitHostPort(r.Serve); port == "0" {
		return nil, &settingError{"registry.serve has port 0, so its address is not known here", "`tailrace capture status` shows it: name it with --registry-url", nil}
	}
	return ownRegistry(r, r.Serve)
}

// schemaRegistry is the registry of a running process: a client, and our own server if it
// is ours. The server's address answers from the beginning, with 503 until the log has
// been read and whenever it must be opened again.
//
// Another process that serves the same topic takes the log over as it starts, even one that
// was started by mistake and ends at once because the slot is in use. So a fenced registry
// stands by and takes the log back later; captures go on meanwhile, and wait if they meet
// a new schema.
type schemaRegistry struct {
	*registry.Client
	url      string
	listener net.Listener // nil: the registry is another's
	access   *httpapi.Access
	server   atomic.Pointer[registry.Server]
	sup      *supervisor
}

// openRegistry listens for our own registry, if it is configured, and makes the client.
func openRegistry(ctx context.Context, r config.Registry, b *broker, log *slog.Logger) (*schemaRegistry, error) {
	out := &schemaRegistry{url: r.URL}
	if r.URL == "" {
		var err error
		if out.access, err = RegistryAccess(&r, log); err != nil {
			return nil, err
		}
		if out.listener, err = httpapi.Listen(ctx, "the registry", out.access); err != nil {
			return nil, err
		}
		r.Serve, out.url = out.listener.Addr().String(), "http://"+out.listener.Addr().String()
		if r.TLS != nil {
			out.url = "https://" + out.listener.Addr().String()
		}
		log.Info("listening", "what", "registry", "address", r.Serve)
	}
	client, err := NewRegistry(r)
	if err != nil {
		if out.listener != nil {
			_ = out.listener.Close()
		}
		return nil, err
	}
	out.Client = client
	out.sup = &supervisor{
		name: "registry", log: log,
		run:     func(ctx context.Context) error { return out.own(ctx, b, r.Topic, log) },
		running: func() bool { return out.server.Load() != nil },
		standby: longestPause,
	}
	return out, nil
}

// serve answers requests for our own registry until ctx ends.
func (r *schemaRegistry) serve(ctx context.Context) error {
	return httpapi.Serve(ctx, r.listener, r.access.Guard(r))
}

// own is one run of our own registry: it takes the log over, and stays until ctx ends or
// another process takes it.
func (r *schemaRegistry) own(ctx context.Context, b *broker, topic string, log *slog.Logger) error {
	schemas, err := openSchemaLog(ctx, b, topic, log)
	if err != nil {
		return err
	}
	s, err := registry.NewServer(ctx, schemas, registry.ServerConfig{Logger: log})
	if err != nil {
		return err
	}
	r.server.Store(s)
	defer r.server.Store(nil)
	select {
	case <-ctx.Done():
		return nil
	case <-s.Done():
		return s.Err()
	}
}

// ServeHTTP implements http.Handler.
func (r *schemaRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if s := r.server.Load(); s != nil {
		s.ServeHTTP(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write([]byte(`{"error_code":50301,"message":"the schemas are being read"}` + "\n"))
}

// status is the registry's part of the status.
func (r *schemaRegistry) status() httpapi.RegistryStatus {
	out := httpapi.RegistryStatus{Kind: "external", URL: r.url}
	if r.listener != nil {
		snap := r.sup.snapshot()
		out.Kind, out.State, out.Error = "served", snap.state, snap.problem()
	}
	return out
}
