package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

// Tools is what a command needs that acts in a capture's or a sink's place while that does
// not run: the broker and the registry, which it serves itself if they are the process's own
// and that process does not run.
type Tools struct {
	app  *app
	stop context.CancelFunc
	work sync.WaitGroup
	ours bool // the embedded broker was started here: no process has it
}

// OpenTools opens the broker and the registry. The log says what is started.
func OpenTools(ctx context.Context, cfg *config.Config, version string, log *slog.Logger) (_ *Tools, err error) {
	t := &Tools{app: &app{cfg: cfg, opts: Options{Version: version, Log: log}, metrics: newMetrics(version)}}
	if t.app.broker, err = t.openBroker(ctx, cfg.Broker, log); err != nil {
		return nil, err
	}
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	if err := t.openRegistry(ctx, working, log); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// openBroker starts the embedded broker at an address of its own, unless a process has it.
func (t *Tools) openBroker(ctx context.Context, b config.Broker, log *slog.Logger) (*broker, error) {
	if b.Embedded != nil {
		own := *b.Embedded
		own.Listen = "127.0.0.1:0"
		server, err := openBroker(ctx, config.Broker{Embedded: &own}, log)
		if err == nil {
			t.ours = true
			return server, nil
		}
		if !errors.Is(err, embedded.ErrLocked) {
			return nil, err
		}
	}
	client, err := NewClient(b, log)
	if err != nil {
		return nil, err
	}
	return &broker{Client: client}, nil
}

// openRegistry makes the client of the registry; where it is the process's own and does not
// answer, it is served here.
func (t *Tools) openRegistry(ctx, working context.Context, log *slog.Logger) (err error) {
	r := t.app.cfg.Registry
	if r.URL == "" && t.ours {
		return t.serveRegistry(ctx, working, r, log)
	}
	client, err := NewRegistry(r)
	if err != nil {
		return err
	}
	t.app.registry = &schemaRegistry{Client: client}
	if r.URL != "" || client.Ping(ctx) == nil {
		return nil
	}
	client.Close()
	return t.serveRegistry(ctx, working, r, log)
}

func (t *Tools) serveRegistry(ctx, working context.Context, r config.Registry, log *slog.Logger) (err error) {
	r.Serve = "127.0.0.1:0"
	if t.app.registry, err = openRegistry(ctx, r, t.app.broker, log); err != nil {
		return err
	}
	t.work.Go(func() { _ = t.app.registry.serve(working) })
	t.work.Go(func() { _ = t.app.registry.sup.Run(working) })
	for t.app.registry.server.Load() == nil {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
		if s := t.app.registry.sup.snapshot(); s.err != nil {
			return s.err
		}
	}
	return nil
}

// Close ends what was opened.
func (t *Tools) Close() {
	if t.app.registry != nil {
		t.app.registry.Close()
	}
	t.stop()
	t.work.Wait()
	if err := t.app.broker.close(); err != nil {
		t.app.opts.Log.Warn("did not end in order", "error", err)
	}
}

// Client is the broker's.
func (t *Tools) Client() *stream.Client { return t.app.broker.Client }

// Shared says that a process may be at work on the same broker.
func (t *Tools) Shared() bool { return !t.ours }

// Embedded says that only one process can be at work, whose captures nobody else can fence.
func (t *Tools) Embedded() bool { return t.app.cfg.Broker.Embedded != nil }

// ResolveCapture carries out a decision about a capture, see capture.Resolve.
func (t *Tools) ResolveCapture(ctx context.Context, c *config.Capture, d capture.Decision, agree func(context.Context, *capture.Effect) error) error {
	p := t.app.newPipeline(c)
	cfg, err := p.config()
	if err != nil {
		return err
	}
	cfg.Transactional = !t.Embedded()
	return p.sup.advised(capture.Resolve(ctx, cfg, d, agree))
}

// ResolveSink carries out a decision about a sink, see sinks.Resolve.
func (t *Tools) ResolveSink(ctx context.Context, c *config.Sink, d sinks.Decision, agree func(context.Context, *sinks.Effect) error) error {
	target := t.app.newTarget(c)
	cfg, err := target.config()
	if err != nil {
		return err
	}
	return target.sup.advised(sinks.Resolve(ctx, cfg, d, agree))
}
