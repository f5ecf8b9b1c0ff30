package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// Options is what a process has beside its configuration.
type Options struct {
	Version string
	Log     *slog.Logger
	Watch   func(View)            // told once the parts are there, before they start; may be nil
	Reload  <-chan *config.Config // the configuration as it was read again, valid; may be nil
}

// View shows a process at work, to the program that runs it. Its functions may be called
// from any goroutine until Run returns.
type View struct {
	Status    func() httpapi.Status
	Latencies func() []time.Duration // from commit to durable in the target, of the sinks' last batches
}

// app is a process at work.
type app struct {
	cfg      *config.Config
	opts     Options
	started  time.Time
	metrics  *prometheus.Registry
	access   *httpapi.Access
	broker   *broker
	registry *schemaRegistry
	captures []*pipeline
	sinks    []*target
	resting  resting // parts that have stopped for good, while others work
}

// Run makes a process of cfg and lets it work until ctx ends, every capture and sink has
// stopped for good (as long as others work, one that has may be started again), or a part that all need fails. When ctx ends, captures write what is complete and
// confirm it first. The error is that of the part that failed; nil: nothing failed.
func Run(ctx context.Context, cfg *config.Config, opts Options) (err error) {
	a := &app{cfg: cfg, opts: opts, started: time.Now().UTC(), metrics: newMetrics(opts.Version)}
	if a.access, err = HTTPAccess(&cfg.HTTP, opts.Log); err != nil {
		return err
	}
	api, err := httpapi.Listen(ctx, "http", a.access)
	if err != nil {
		return err
	}
	if a.broker, err = openBroker(ctx, cfg.Broker, opts.Log); err != nil {
		return errors.Join(err, api.Close())
	}
	defer func() { err = errors.Join(err, a.broker.close()) }()
	if a.registry, err = openRegistry(ctx, cfg.Registry, a.broker, opts.Log); err != nil {
		return errors.Join(err, api.Close())
	}
	defer a.registry.Close()
	for i := range cfg.Captures {
		a.captures = append(a.captures, a.newPipeline(&cfg.Captures[i]))
	}
	for i := range cfg.Sinks {
		a.sinks = append(a.sinks, a.newTarget(&cfg.Sinks[i]))
	}
	a.measure()
	if opts.Watch != nil {
		opts.Watch(View{Status: a.status, Latencies: a.latencies})
	}
	opts.Log.Info("listening", "what", "http", "address", api.Addr().String())
	return a.run(ctx, api)
}

// newMetrics returns a registry with what every process shows.
func newMetrics(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tailrace_build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }),
	)
	return r
}

// run starts every part, waits for the captures and sinks to end, then ends what served
// them. A part that serves and fails ends the captures and sinks.
func (a *app) run(ctx context.Context, api net.Listener) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	serving, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var servers sync.WaitGroup
	failures := make(chan error, 3)
	serve := func(part func(context.Context) error) {
		servers.Go(func() {
			if err := part(serving); err != nil {
				failures <- err
				stop()
			}
		})
	}
	serve(func(ctx context.Context) error {
		return httpapi.Serve(ctx, api, httpapi.New(a.status, a.metrics, a.access))
	})
	if a.registry.listener != nil {
		serve(a.registry.serve)
		serve(a.registry.sup.Run)
	}
	servers.Go(func() { a.reload(serving) })
	servers.Go(func() { a.heed(serving) })
	for _, p := range a.captures {
		servers.Go(func() { p.watchRetention(serving, retentionEvery) })
	}
	errs := a.work(working)
	release()
	servers.Wait()
	close(failures)
	for err := range failures {
		errs = append(errs, err)
	}
	return join(errs)
}

// work runs every capture and sink until all have ended, and returns their errors.
func (a *app) work(ctx context.Context) []error {
	var sups []*supervisor
	for _, p := range a.captures {
		sups = append(sups, p.sup)
	}
	for _, t := range a.sinks {
		sups = append(sups, t.sup)
	}
	errs := make([]error, len(sups))
	a.resting.begin(len(sups))
	var all sync.WaitGroup
	for i, sup := range sups {
		sup.rest = func(ctx context.Context) bool { return a.resting.rest(ctx, sup.name) }
		all.Go(func() { errs[i] = sup.Run(ctx) })
	}
	all.Wait()
	return errs
}

// join returns the one error there is, or all of them as one; nil for none.
func join(errs []error) error {
	var some []error
	for _, err := range errs {
		if err != nil {
			some = append(some, err)
		}
	}
	if len(some) == 1 {
		return some[0]
	}
	return errors.Join(some...)
}

// status is the answer of /status.
func (a *app) status() httpapi.Status {
	s := httpapi.Status{
		Version: a.opts.Version, Started: a.started,
		Broker:   httpapi.BrokerStatus{Kind: "kafka", Address: a.broker.address, Low: a.broker.low()},
		Registry: a.registry.status(),
		Captures: []httpapi.Capture{},
	}
	if a.broker.embedded != nil {
		s.Broker.Kind = "embedded"
	}
	for _, p := range a.captures {
		s.Captures = append(s.Captures, p.status())
	}
	for _, t := range a.sinks {
		s.Sinks = append(s.Sinks, t.status())
	}
	s.Causes = causes(&s)
	s.Ready = len(s.Causes) == 0
	return s
}

// latencies are those of all sinks.
func (a *app) latencies() []time.Duration {
	var out []time.Duration
	for _, t := range a.sinks {
		out = append(out, t.monitor.Latencies()...)
	}
	return out
}

// causes says what keeps the process from being ready.
func causes(s *httpapi.Status) []string {
	var out []string
	if s.Broker.Low {
		out = append(out, "the embedded broker's disk has less free space than broker.embedded.min_free")
	}
	if r := s.Registry; r.Kind == "served" && r.State != httpapi.Running {
		out = append(out, cause("registry", r.State, r.Error))
	}
	for _, c := range s.Captures {
		if c.State != httpapi.Running {
			out = append(out, cause("capture "+strconv.Quote(c.Name), c.State, c.Error))
		}
	}
	for _, t := range s.Sinks {
		if t.State != httpapi.Running && t.State != httpapi.Standby {
			out = append(out, cause("sink "+strconv.Quote(t.Name), t.State, t.Error))
		}
	}
	return out
}

// cause says why one part is not ready.
func cause(part string, state httpapi.State, p *httpapi.Problem) string {
	if p == nil {
		return fmt.Sprintf("%s is %s", part, state)
	}
	return fmt.Sprintf("%s is %s: %s", part, state, p.Message)
}
