package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream/embedded"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// world is an embedded broker with the changes of a shop: some fifty keys, four partitions.
type world struct {
	addr, prefix string
	registry     string // its address
	cfg          subscribe.Config
	want         map[string]expected
	records      uint64
	partitions   []sinks.Partition
}

const shopKeys = 50

// newWorld writes changes of two tables: inserts, updates, deletes, changed keys.
func newWorld(t *testing.T, changes int, rng *rand.Rand) *world {
	t.Helper()
	broker, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir() + "/data", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{addr: broker.Addr(), registry: registrytest.Start(t)}
	if w.cfg, err = sourceAt(w.addr, w.registry); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cfg.Client.Close)
	t.Cleanup(w.cfg.Registry.Close)
	shop := sinktest.NewWriter(t, w.cfg, "shop")
	w.prefix = shop.Prefix
	other := items()
	other.Name = "others"
	tables := []*sinktest.Table{shop.Table(items(), 4), shop.Table(other, 2)}
	for n := range int32(6) {
		w.partitions = append(w.partitions, sinks.Partition{Topic: tables[n/4].Topic, Number: n % 4})
	}
	records := 0
	for n := 0; n < changes; {
		shop.Begin()
		for range 1 + rng.IntN(20) {
			n++
			id := rng.IntN(shopKeys)
			c := sinktest.Change{Table: tables[min(rng.IntN(4), 1)], Op: "cuuuud"[rng.IntN(6)], Row: []any{id, n, fmt.Sprint("change ", n)}}
			switch {
			case c.Op == 'u' && rng.IntN(10) == 0:
				c.OldKey = []any{rng.IntN(shopKeys)}
				records += 3
			case c.Op == 'd':
				records += 2
			default:
				records++
			}
			shop.Write(&c)
		}
		shop.End()
		shop.Flush()
	}
	w.records = uint64(records)
	w.want = expect(t, w.addr, "shop", records, tables[0].Topic, tables[1].Topic)
	return w
}

// hookTo returns the settings of a sink that delivers to a hostile target.
func hookTo(target, life string) Config {
	return Config{Name: "hook", URL: target + "/{table}/{key.id}", Secrets: []string{"the next secret, not known to the target", testSecret}, Headers: map[string]string{"x-life": life},
		Concurrency: 16, Timeout: 300 * time.Millisecond, Allow: []string{"127.0.0.1/32"}}
}

// run runs a sink, again and again as its supervisor does, until done or it ends for good.
// change may make another sink of it.
func (w *world) run(t *testing.T, cfg Config, change func(*Sink) sinks.Sink, done func() bool) {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() { ended <- w.supervise(ctx, cfg, change, logger) }()
	deadline := time.After(4 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the sink ended: %v", err)
		case <-deadline:
			t.Error("not everything arrives")
			cancel(nil)
			<-ended
			return
		}
	}
	cancel(nil)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "canary") || strings.Contains(log.String(), "whsec_") {
		t.Errorf("the log shows what it must not:\n%s", log.String())
	}
}

// supervise starts runs until ctx ends.
func (w *world) supervise(ctx context.Context, cfg Config, change func(*Sink) sinks.Sink, log *slog.Logger) error {
	for {
		err := sinks.Run(ctx, sinks.Config{
			Name: cfg.Name, Prefix: w.prefix, Mode: sinks.Keys, Source: w.cfg, Monitor: sinks.NewMonitor(cfg.Name, nil), Log: log,
			Sink: func() (sinks.Sink, error) {
				cfg.Positions, cfg.Log = sinks.NewPositions(w.cfg.Client, cfg.Name), log
				s, err := New(cfg)
				if err != nil || change == nil {
					return s, err
				}
				return change(s), nil
			},
		})
		if err == nil || sinks.IsFatal(err) {
			return err
		}
	}
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64() >> 32
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 2))
}

func (h *hostile) verdict(t *testing.T, want map[string]expected) *found {
	t.Helper()
	f := judge(h.seen(), want)
	t.Logf("%d events, %d arrivals: %v; faults %v", len(want), len(h.arrivals), f, h.faults)
	if len(h.forged) > 0 {
		t.Errorf("%d requests are not signed: %q", len(h.forged), h.forged[0])
	}
	if n := h.lured.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
	return f
}

// Against a target that does everything wrong every change arrives, each key's in order, and
// what comes again has the same id and body.
func TestHostileTarget(t *testing.T) {
	t.Parallel() // as the tests below: most of it is waiting
	for name, change := range map[string]func(*Config){
		"binary":     func(*Config) {},
		"structured": func(c *Config) { c.Mode = Structured },
		"batches":    func(c *Config) { c.Batch, c.URL = 20, strings.TrimSuffix(c.URL, "/{table}/{key.id}") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			w := newWorld(t, 2000, rng)
			h := newHostile(t, rng.Uint64(), 0.2)
			cfg := hookTo(h.server.URL, "1")
			change(&cfg)
			w.run(t, cfg, nil, func() bool { return h.complete(len(w.want)) })
			if f := h.verdict(t, w.want); !f.good() || len(w.want) < 2000 {
				t.Error("see above")
			}
			for _, fault := range faultNames {
				if h.faults[fault] == 0 && cfg.Batch == 0 {
					t.Errorf("the fault %q never came up", fault)
				}
			}
		})
	}
}

// mutant is a sink with a fault.
type mutant struct {
	*Sink
	apply func(s *Sink, ctx context.Context, b *sinks.Batch) error
}

func (m *mutant) Apply(ctx context.Context, b *sinks.Batch) error { return m.apply(m.Sink, ctx, b) }

// mutants are faults that a sink might have, each with what the judge must see of it.
var mutants = map[string]struct {
	apply func(s *Sink, ctx context.Context, b *sinks.Batch) error
	sees  func(*found) bool
}{
	"none": {(*Sink).Apply, (*found).good},
	"skips a change": {func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		b.Changes = b.Changes[:len(b.Changes)-1]
		return s.Apply(ctx, b)
	}, func(f *found) bool { return f.lost > 0 }},
	"does not wait for the key": {func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		return s.mutated(ctx, b, func(events []*event) {
			for _, e := range events {
				e.key = e.id
			}
		})
	}, func(f *found) bool { return f.reordered > 0 && f.skippedAhead > 0 && f.lost == 0 }},
	"reverses a batch": {func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		return s.mutated(ctx, b, slices.Reverse)
	}, func(f *found) bool { return f.reordered > 0 && f.lost == 0 }},
	"another id when it comes again": {func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		return s.mutated(ctx, b, func(events []*event) {
			e := *events[len(events)-1]
			e.id += "0"
			e.header = slices.Clone(e.header)
			for i := range e.header {
				if e.header[i].name == "ce-id" {
					e.header[i].value = e.id
				}
			}
			if err := s.deliver(ctx, []*event{&e}); err != nil {
				e.id = err.Error()
			}
		})
	}, func(f *found) bool { return f.wrong > 0 && f.lost == 0 }},
	"another body when it comes again": {func(s *Sink, ctx context.Context, b *sinks.Batch) error {
		if err := s.Apply(ctx, b); err != nil {
			return err
		}
		return s.mutated(ctx, b, func(events []*event) {
			for _, e := range events {
				e.body = bytes.Replace(e.body, []byte("change "), []byte("change  "), 1)
			}
		})
	}, func(f *found) bool { return f.changed > 0 && f.lost == 0 }},
}

// mutated is Apply, with something done to the events.
func (s *Sink) mutated(ctx context.Context, b *sinks.Batch, mutate func([]*event)) error {
	events, err := s.events(b.Changes)
	if err != nil || len(events) == 0 {
		return err
	}
	mutate(events)
	return errors.Join(s.deliver(ctx, events), s.cfg.Positions.Write(ctx, b.Positions))
}

func TestMutantsAreCaught(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	w := newWorld(t, 500, rng)
	for name, m := range mutants {
		seed := rng.Uint64()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, seed, 0.1)
			cfg := hookTo(h.server.URL, "1")
			cfg.Name = strings.ReplaceAll(name, " ", "-") // positions and a group of its own
			w.run(t, cfg, func(s *Sink) sinks.Sink { return &mutant{s, m.apply} }, w.through(cfg.Name))
			if f := judge(h.seen(), w.want); !m.sees(f) {
				t.Errorf("the judge sees %v", f)
			}
		})
	}
}

// through says whether a sink has come to the end of every partition, by what it reported
// in its positions.
func (w *world) through(sink string) func() bool {
	return func() bool {
		state, err := w.cfg.Client.LoadState(context.Background(), sinks.PositionsTopic(sink))
		if err != nil {
			return false // there is none yet
		}
		var n uint64
		for _, value := range state {
			var at struct{ At struct{ N uint64 } }
			if json.Unmarshal(value, &at) != nil {
				return false
			}
			n += at.At.N
		}
		return n == w.records
	}
}
