package app

import (
	"context"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/postgres"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// target is one sink with its supervisor.
type target struct {
	cfg     *config.Sink
	prefix  string
	monitor *sinks.Monitor
	sup     *supervisor
}

// newTarget makes the target of one sink.
func (a *app) newTarget(c *config.Sink) *target {
	t := &target{cfg: c, prefix: a.cfg.Prefix(c.From), monitor: sinks.NewMonitor(c.Name, a.metrics)}
	log := a.opts.Log.With("sink", c.Name)
	settings := postgres.Config{Name: c.Name, URL: c.Postgres.URL.Reveal(), Schema: c.Postgres.Schema, Log: log}
	t.sup = &supervisor{
		name:    "sink " + c.Name,
		log:     log,
		running: t.works,
		told:    func(s httpapi.State) { t.monitor.SetPhase(sinks.Phase(s)) },
		run: func(ctx context.Context) error {
			return sinks.Run(ctx, sinks.Config{
				Name:    c.Name,
				Prefix:  t.prefix,
				Mode:    sinks.Mode(c.Mode),
				Source:  subscribe.Config{Client: a.broker.Client, Registry: a.registry.Client, Log: log},
				Sink:    func() (sinks.Sink, error) { return postgres.New(settings) },
				Monitor: t.monitor,
				Log:     log,
			})
		},
	}
	return t
}

// works says whether the sink does what it should: apply, or stand by.
func (t *target) works() bool {
	phase := t.monitor.Status().Phase
	return phase == sinks.PhaseRunning || phase == sinks.PhaseStandby
}

// status is the sink's part of the status.
func (t *target) status() httpapi.Sink {
	snap, seen := t.sup.snapshot(), t.monitor.Status()
	out := httpapi.Sink{
		Name: t.cfg.Name, From: t.prefix,
		State: snap.state, Since: snap.since, Restarts: snap.restarts, RetryAt: snap.retryAt,
		Lag: seen.Lag, LastEvent: seen.LastEvent, Events: seen.Events, Transactions: seen.Transactions, Error: snap.problem(),
	}
	if snap.state == httpapi.Running {
		out.State, out.Since = httpapi.State(seen.Phase), seen.Since
	}
	return out
}
