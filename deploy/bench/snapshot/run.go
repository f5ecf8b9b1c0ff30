package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// ordersSQL makes the table, and its rows by their numbers.
const ordersSQL = `CREATE TABLE public.orders (
	id bigint PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL,
	total numeric(12,2) NOT NULL, currency text NOT NULL,
	placed timestamptz NOT NULL, updated timestamptz NOT NULL, paid boolean NOT NULL,
	reference uuid NOT NULL, details jsonb NOT NULL, note text, due date NOT NULL);
INSERT INTO public.orders SELECT i, i * 7919 % 200000, (ARRAY['new', 'picked', 'packed', 'shipped', 'delivered'])[1 + i % 5],
	(i * 31 % 5000000) / 100.0, (ARRAY['EUR', 'USD', 'CHF'])[1 + i % 3],
	timestamptz '2026-01-01 00:00:00+00' + i * interval '250 milliseconds', timestamptz '2026-02-01 00:00:00+00' + i * interval '251 milliseconds',
	i % 2 = 0, md5(i::text)::uuid,
	jsonb_build_object('items', jsonb_build_array(jsonb_build_object('sku', md5((i % 997)::text), 'n', i % 5), jsonb_build_object('sku', md5((i % 991)::text), 'n', 1)),
		'city', 'Freiburg im Breisgau', 'gift', i % 7 = 0), CASE WHEN i % 3 = 0 THEN 'leave it at the door, please' END, date '2026-03-01' + (i % 90)::int
	FROM generate_series(1::bigint, ROWS) i`

const (
	database = "shop"
	copySQL  = "COPY (SELECT id, customer, status, total, currency, placed, updated, paid, reference, details, note, due FROM public.orders) TO STDOUT"
)

// bench is what all runs share.
type bench struct {
	options
	pg    *testenv.Postgres
	kafka *testenv.Kafka
	dir   string
	bin   string
	result
}

func run(ctx context.Context, o options) (_ *result, err error) {
	b := &bench{options: o}
	b.Rows = o.rows
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	for i := range o.runs {
		fmt.Fprintf(os.Stderr, "run %d of %d\n", i+1, o.runs)
		y, err := b.yardstick(ctx)
		if err != nil {
			return nil, fmt.Errorf("yardstick: %w", err)
		}
		t, err := b.tailrace(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("tailrace: %w", err)
		}
		b.yardsticks, b.tailraces = append(b.yardsticks, y), append(b.tailraces, t)
	}
	b.conclude()
	return &b.result, nil
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "tailrace-snapshot-"); err != nil {
		return err
	}
	if b.bin, err = product.Build(ctx, b.dir, false); err != nil {
		return err
	}
	if b.pg, err = testenv.StartPostgres(ctx, testenv.PGOptions{Settings: map[string]string{"shared_buffers": "1GB", "max_wal_size": "8GB"}}); err != nil {
		return err
	}
	if b.broker == "kafka" {
		if b.kafka, err = testenv.StartKafka(ctx, testenv.KafkaOptions{}); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "filling the table with %d rows\n", b.rows)
	if err := b.pg.Exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return err
	}
	return b.pg.Exec(ctx, database, strings.Replace(ordersSQL, "ROWS", fmt.Sprint(b.rows), 1), "VACUUM (FREEZE, ANALYZE) public.orders", "CHECKPOINT")
}

func (b *bench) close() error {
	var errs []error
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.pg != nil {
		errs = append(errs, b.pg.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// yardstick copies the table to nowhere.
func (b *bench) yardstick(ctx context.Context) (float64, error) {
	conn, err := pgx.Connect(ctx, b.pg.AdminURL(database))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	begun := time.Now()
	tag, err := conn.PgConn().CopyTo(ctx, io.Discard, copySQL)
	took := time.Since(begun).Seconds()
	if err == nil && tag.RowsAffected() != int64(b.rows) {
		err = fmt.Errorf("the table has %d rows", tag.RowsAffected())
	}
	return took, err
}

// tailrace has a new capture read the table.
func (b *bench) tailrace(ctx context.Context, i int) (took float64, err error) {
	cfg := product.Config{Dir: filepath.Join(b.dir, fmt.Sprint("run", i)), Bin: b.bin, Database: b.pg.AdminURL(database),
		Prefix: fmt.Sprintf("run%d", i), Partitions: 4, Snapshot: "initial", Readers: b.readers}
	if b.kafka != nil {
		cfg.Kafka = b.kafka.Addr()
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return 0, err
	}
	p, err := product.New(cfg)
	if err != nil {
		return 0, err
	}
	if err := p.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := p.Capturing(ctx); err != nil {
		return 0, err
	}
	client, err := stream.NewClient(stream.Config{Brokers: []string{p.Broker()}})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	done, err := b.await(ctx, p, client, cfg.Prefix)
	if err != nil {
		return 0, err
	}
	peak, err := p.PeakMemory()
	if err != nil {
		return 0, err
	}
	b.RSS = max(b.RSS, peak>>20)
	if err := b.count(ctx, client, cfg.Prefix); err != nil {
		return 0, err
	}
	return done.Ended.Sub(*done.Started).Seconds(), nil
}

// await waits for the end of the backfill.
func (b *bench) await(ctx context.Context, p *product.Product, client *stream.Client, name string) (*capture.Backfill, error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := capture.Backfills(ctx, client, name)
		if err != nil {
			return nil, err
		}
		if len(list) == 1 && list[0].State.Ended() {
			if list[0].State != capture.BackfillDone {
				return nil, fmt.Errorf("the backfill is %s: %s", list[0].State, list[0].Error)
			}
			return &list[0], nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return nil, fmt.Errorf("the capture ended: %s\n%s", p.End(), p.Log(4000))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// count counts the rows in the topic, each by its key.
func (b *bench) count(ctx context.Context, client *stream.Client, prefix string) error {
	topic := prefix + ".public.orders"
	info, err := client.Topic(ctx, topic)
	if err != nil {
		return err
	}
	seen := make(map[string]struct{}, b.rows)
	records := 0
	for p := range info.Partitions {
		if _, err := client.ReadToEnd(ctx, topic, p, 0, func(r *stream.Record) error {
			records++
			seen[string(r.Key)] = struct{}{}
			return nil
		}); err != nil {
			return err
		}
	}
	if len(seen) != b.rows || records != b.rows {
		b.wrong = append(b.wrong, fmt.Sprintf("topic %s has %d records of %d rows, not %d", topic, records, len(seen), b.rows))
	}
	return nil
}
