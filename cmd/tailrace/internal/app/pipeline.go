package app

import (
	"context"
	"sync/atomic"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/capture/postgres"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// pipeline is one capture with its supervisor.
type pipeline struct {
	cfg     *config.Capture
	monitor *capture.Monitor
	sup     *supervisor
	tables  atomic.Pointer[[]string]       // patterns of the tables, which a reload may change
	look    chan struct{}                  // they have changed
	config  func() (capture.Config, error) // what a run works with
}

// newPipeline makes the pipeline of one capture.
func (a *app) newPipeline(c *config.Capture) *pipeline {
	p := &pipeline{cfg: c, monitor: capture.NewMonitor(c.Name, a.metrics), look: make(chan struct{}, 1)}
	p.tables.Store(&c.Postgres.Tables)
	log := a.opts.Log.With("capture", c.Name)
	p.sup = &supervisor{
		name:    "capture " + c.Name,
		log:     log,
		running: func() bool { return p.monitor.Status().Phase == capture.PhaseRunning },
		told:    func(s httpapi.State) { p.monitor.SetPhase(capture.Phase(s)) },
		hint:    captureHint(c.Name),
		run: func(ctx context.Context) error {
			cfg, err := p.config()
			if err != nil {
				return err
			}
			return capture.Run(ctx, cfg)
		},
	}
	p.config = func() (cfg capture.Config, err error) {
		codec, err := stream.ParseCodec(c.Compression)
		if err != nil {
			return cfg, &settingError{"choose compression", "none, gzip, snappy, lz4 or zstd", err}
		}
		source := c.Source()
		source.Version, source.Log, source.Registerer = a.opts.Version, log, a.metrics
		source.TablesNow = func() []string { return *p.tables.Load() }
		return capture.Config{
			Name:          c.Name,
			Naming:        schemas.Naming{Prefix: c.Prefix, Connector: "postgresql", Adjust: schemas.AdjustNone},
			Client:        a.broker.Client,
			Registry:      a.registry.Client,
			Source:        func() (capture.Source, error) { return postgres.New(source) },
			Transactional: a.broker.transactional(),
			Snapshot:      capture.SnapshotMode(c.Snapshot),
			Backfill:      capture.BackfillConfig{Readers: c.Backfill.Readers, Rate: c.Backfill.Rate},
			Look:          p.look,
			Topics:        topics(c.Topics),
			Codec:         codec,
			Monitor:       p.monitor,
			Log:           log,
		}, nil
	}
	return p
}

// topics translates the configuration of topics.
func topics(t config.Topics) capture.Topics {
	return capture.Topics{Partitions: t.Partitions, Replication: t.Replication, Create: *t.Create, Config: t.Config}
}

// status is the capture's part of the status.
func (p *pipeline) status() httpapi.Capture {
	snap, seen := p.sup.snapshot(), p.monitor.Status()
	out := httpapi.Capture{
		Name: p.cfg.Name, Prefix: p.cfg.Prefix,
		State: snap.state, Since: snap.since, Restarts: snap.restarts, RetryAt: snap.retryAt,
		Position: positionText(seen.Position), Lag: seen.Lag, LastEvent: seen.LastEvent,
		Events: seen.Events, Error: snap.problem(), Retained: seen.Retained, Backfills: p.monitor.Backfills(),
	}
	if snap.state == httpapi.Running {
		out.Since = seen.Since
	}
	return out
}

// positionText is a position for the status; "" if none is known.
func positionText(p capture.Position) string {
	if p == (capture.Position{}) {
		return ""
	}
	return p.String()
}
