package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/stream"
)

// settings of the target's server, beside durable writes: as one would give it, and no
// checkpoint in the middle of a run.
var settings = map[string]string{"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}

// bench is one run of the program.
type bench struct {
	options
	pg       *testenv.Postgres
	kafka    *testenv.Kafka
	web      *httptest.Server // the registry
	registry *registry.Client
	client   *stream.Client

	shop       shop
	rows, keys []byte // COPY text of the end
	lastEnd    int64  // offset after the last END record
	result     result
}

func run(ctx context.Context, o options) (_ *result, err error) {
	b := &bench{options: o}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if err := b.fill(ctx); err != nil {
		return nil, err
	}
	for i := range o.runs {
		fmt.Fprintf(os.Stderr, "run %d of %d\n", i+1, o.runs)
		y, err := b.measure(ctx, fmt.Sprintf("yardstick_%d", i), b.yardstick)
		if err != nil {
			return nil, fmt.Errorf("yardstick: %w", err)
		}
		t, err := b.measure(ctx, fmt.Sprintf("tailrace_%d", i), b.profiled(b.tailrace))
		if err != nil {
			return nil, fmt.Errorf("tailrace: %w", err)
		}
		b.result.yardsticks, b.result.tailraces = append(b.result.yardsticks, *y), append(b.result.tailraces, *t)
	}
	b.result.Rows, b.result.counts = o.rows, b.shop.counts
	b.result.conclude()
	return &b.result, nil
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.pg, err = testenv.StartPostgres(ctx, testenv.PGOptions{Durable: true, Settings: settings}); err != nil {
		return err
	}
	if b.kafka, err = testenv.StartKafka(ctx, testenv.KafkaOptions{}); err != nil {
		return err
	}
	server, err := registry.NewServer(ctx, registrytest.NewLog(), registry.ServerConfig{})
	if err != nil {
		return err
	}
	b.web = httptest.NewServer(server)
	if b.registry, err = registry.NewClient(registry.ClientConfig{URL: b.web.URL}); err != nil {
		return err
	}
	b.client, err = stream.NewClient(stream.Config{Brokers: []string{b.kafka.Addr()}})
	return err
}

func (b *bench) close() error {
	if b.client != nil {
		b.client.Close()
	}
	if b.registry != nil {
		b.registry.Close()
	}
	if b.web != nil {
		b.web.Close()
	}
	var errs []error
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.pg != nil {
		errs = append(errs, b.pg.Close())
	}
	return errors.Join(errs...)
}

// fill writes the topic, and the text that the yardstick copies.
func (b *bench) fill(ctx context.Context) error {
	fmt.Fprintf(os.Stderr, "writing %d changes into the topic\n", b.options.rows)
	start := time.Now()
	f, err := newFiller(ctx, b.client, b.registry)
	if err != nil {
		return err
	}
	if err := f.fill(ctx, &b.shop, b.options.rows); err != nil {
		return err
	}
	if _, err := b.client.WaitStable(ctx, endTopic, 0); err != nil {
		return err
	}
	tail, err := b.client.Tail(ctx, endTopic, 0, 0)
	if err != nil {
		return err
	}
	if !tail.Found {
		return errors.New("fill the topic: there is no END record")
	}
	b.lastEnd = tail.Offset + 1
	b.rows, b.keys = b.shop.final()
	fmt.Fprintf(os.Stderr, "that took %.1f s\n", time.Since(start).Seconds())
	return nil
}

// measure runs one way into a database of its own, which it drops afterwards.
func (b *bench) measure(ctx context.Context, db string, way func(ctx context.Context, db string, t *timing) error) (*timing, error) {
	if err := b.pg.Exec(ctx, "postgres", "CREATE DATABASE "+db); err != nil {
		return nil, err
	}
	if err := b.pg.Exec(ctx, db, ordersDDL, "CHECKPOINT"); err != nil {
		return nil, err
	}
	runtime.GC()
	t := &timing{}
	cpu, err := cpuSeconds()
	if err != nil {
		return nil, err
	}
	if err := way(ctx, db, t); err != nil {
		return nil, err
	}
	after, err := cpuSeconds()
	if err != nil {
		return nil, err
	}
	t.cpu = after - cpu
	if t.table, err = b.checksum(ctx, db); err != nil {
		return nil, err
	}
	return t, b.pg.Exec(ctx, "postgres", "DROP DATABASE "+db)
}

// profiled adds a CPU profile; that of the last run stays.
func (b *bench) profiled(way func(context.Context, string, *timing) error) func(context.Context, string, *timing) error {
	if b.profile == "" {
		return way
	}
	return func(ctx context.Context, db string, t *timing) (err error) {
		file, err := os.Create(b.profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		return way(ctx, db, t)
	}
}
