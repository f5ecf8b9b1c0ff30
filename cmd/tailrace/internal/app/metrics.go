package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailrace/tailrace/capture/postgres"
)

// measure registers what the process knows of its parts beside what they say themselves.
func (a *app) measure() {
	yes := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	a.metrics.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_ready", Help: "1 if every part does what it should, as /readyz says.",
		}, func() float64 { return yes(a.status().Ready) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_broker_disk_low", Help: "1 if the embedded broker takes nothing because its disk has less free space than min_free.",
		}, func() float64 { return yes(a.broker.low()) }),
	)
	restarts := func(kind, name string, s *supervisor) {
		a.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tailrace_" + kind + "_restarts_total", Help: "Runs after the first.", ConstLabels: prometheus.Labels{kind: name},
		}, func() float64 { return float64(s.snapshot().restarts) }))
	}
	for _, p := range a.captures {
		restarts("capture", p.cfg.Name, p.sup)
	}
	for _, t := range a.sinks {
		restarts("sink", t.cfg.Name, t.sup)
	}
}

// retentionEvery is how often a database is asked how much log it keeps.
const retentionEvery = 15 * time.Second

// watchRetention asks the capture's database how much log it keeps, until ctx ends: also while
// the capture does not run, since then it keeps more and more.
func (p *pipeline) watchRetention(ctx context.Context, every time.Duration) {
	r := postgres.NewRetention(p.cfg.Source())
	defer func() { _ = r.Close() }() // nothing is lost with it
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, every)
		kept, err := r.Read(asking)
		cancel()
		p.monitor.SetRetained(kept)
		if err != nil && ctx.Err() == nil {
			p.sup.log.Debug("could not ask for the log that is kept", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
