package app

import (
	"context"
	"crypto/tls"
	"log/slog"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/postgres"
	"github.com/tailrace/tailrace/sinks/webhook"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// target is one sink with its supervisor.
type target struct {
	cfg     *config.Sink
	prefix  string
	monitor *sinks.Monitor
	sup     *supervisor
	config  func() (sinks.Config, error) // what a run works with
}

// newTarget makes the target of one sink.
func (a *app) newTarget(c *config.Sink) *target {
	t := &target{cfg: c, prefix: a.cfg.Prefix(c.From), monitor: sinks.NewMonitor(c.Name, a.metrics)}
	log := a.opts.Log.With("sink", c.Name)
	t.sup = &supervisor{
		name:    "sink " + c.Name,
		log:     log,
		running: t.works,
		told:    func(s httpapi.State) { t.monitor.SetPhase(sinks.Phase(s)) },
		hint:    sinkHint(c.Name),
		run: func(ctx context.Context) error {
			cfg, err := t.config()
			if err != nil {
				return err
			}
			return sinks.Run(ctx, cfg)
		},
	}
	t.config = func() (cfg sinks.Config, err error) {
		sink, err := a.newSink(c, log)
		if err != nil {
			return cfg, err
		}
		return sinks.Config{
			Name:    c.Name,
			Prefix:  t.prefix,
			Mode:    sinks.Mode(c.Mode),
			Source:  subscribe.Config{Client: a.broker.Client, Registry: a.registry.Client, Log: log},
			Sink:    sink,
			Monitor: t.monitor,
			Log:     log,

			DeadLetters:    sinks.Policy(c.DeadLetters),
			MaxDeadLetters: c.MaxDeadLetters,
		}, nil
	}
	return t
}

// newSink returns how a sink of one run is made.
func (a *app) newSink(c *config.Sink, log *slog.Logger) (func() (sinks.Sink, error), error) {
	switch {
	case c.Webhook != nil:
		w := c.Webhook
		settings := w.Settings()
		settings.Name, settings.UserAgent, settings.Log = c.Name, "tailrace/"+a.opts.Version, log
		var err error
		if settings.TLS, err = WebhookTLS(w); err != nil {
			return nil, err
		}
		return func() (sinks.Sink, error) {
			settings.Positions = sinks.NewPositions(a.broker.Client, c.Name)
			return webhook.New(settings)
		}, nil
	default:
		settings := postgres.Config{Name: c.Name, URL: c.Postgres.URL.Reveal(), Schema: c.Postgres.Schema, Log: log}
		return func() (sinks.Sink, error) { return postgres.New(settings) }, nil
	}
}

// WebhookTLS reads the files that a webhook's TLS needs.
func WebhookTLS(w *config.Webhook) (*tls.Config, error) {
	return clientTLS("webhook", &config.TLS{CA: w.CA, Cert: w.Cert, Key: w.Key})
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
	if seen.DeadLetters.Letters > 0 || t.cfg.DeadLetters == string(sinks.Park) {
		out.DeadLetters = &seen.DeadLetters
	}
	if snap.state == httpapi.Running {
		out.State, out.Since = httpapi.State(seen.Phase), seen.Since
	}
	return out
}
