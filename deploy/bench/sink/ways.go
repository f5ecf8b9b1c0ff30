package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/postgres"
	"github.com/tailrace/tailrace/stream/subscribe"
)

const orderColumns = "id, customer, status, total, tax, currency, placed, updated, paid, reference, details, note, due"

// merge writes the rows of the temporary tables into the table.
const merge = `DELETE FROM public.orders t USING keys k WHERE t.id = k.id;
	INSERT INTO public.orders (` + orderColumns + `) SELECT ` + orderColumns + ` FROM staged
	ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, status = excluded.status, total = excluded.total, tax = excluded.tax,
	currency = excluded.currency, placed = excluded.placed, updated = excluded.updated, paid = excluded.paid, reference = excluded.reference,
	details = excluded.details, note = excluded.note, due = excluded.due`

// yardstick is the database's own way to the rows of the end.
func (b *bench) yardstick(ctx context.Context, db string, t *timing) error {
	conn, err := pgx.Connect(ctx, b.pg.AdminURL(db))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start := time.Now()
	exec := func(sql string) error {
		_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	fill := func(text []byte, sql string) error {
		_, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(text), sql)
		return err
	}
	err = exec("BEGIN; CREATE TEMPORARY TABLE staged (LIKE public.orders) ON COMMIT DROP; CREATE TEMPORARY TABLE keys (id bigint) ON COMMIT DROP")
	if err == nil {
		err = fill(b.keys, "COPY keys FROM STDIN")
	}
	if err == nil {
		err = fill(b.rows, "COPY staged ("+orderColumns+") FROM STDIN")
	}
	if err == nil {
		err = exec(merge)
	}
	if err == nil {
		err = exec("COMMIT")
	}
	t.seconds = time.Since(start).Seconds()
	return err
}

// watchEvery is how often the target is asked how far the sink is.
const watchEvery = 50 * time.Millisecond

// tailrace runs the sink until its last position is in the target.
func (b *bench) tailrace(ctx context.Context, db string, t *timing) error {
	watch, err := pgx.Connect(ctx, b.pg.AdminURL(db))
	if err != nil {
		return err
	}
	defer watch.Close(context.WithoutCancel(ctx))
	monitor := sinks.NewMonitor(db, nil)
	cfg := sinks.Config{
		Name: db, Prefix: prefix, Monitor: monitor, Source: subscribe.Config{Client: b.client, Registry: b.registry},
		Log:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Sink: func() (sinks.Sink, error) { return postgres.New(postgres.Config{Name: db, URL: b.pg.AdminURL(db)}) },
	}
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- sinks.Run(runCtx, cfg) }()
	err = b.arrived(ctx, watch, ended)
	t.seconds = time.Since(start).Seconds()
	stop()
	if errors.Is(err, errEnded) {
		return err
	}
	err = errors.Join(err, <-ended)
	t.batches = monitor.Status().Batches
	return err
}

var errEnded = errors.New("the sink ended by itself")

// arrived waits for the position of the last END record.
func (b *bench) arrived(ctx context.Context, watch *pgx.Conn, ended <-chan error) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for made := false; ; {
		select {
		case <-tick.C:
		case err := <-ended:
			return fmt.Errorf("%w: %w", errEnded, errors.Join(err, ctx.Err()))
		}
		if !made {
			if err := watch.QueryRow(ctx, "SELECT to_regclass('tailrace.position') IS NOT NULL").Scan(&made); err != nil {
				return err
			}
			continue
		}
		var next int64
		err := watch.QueryRow(ctx, "SELECT coalesce(max(next_offset), 0) FROM tailrace.position WHERE topic = $1", endTopic).Scan(&next)
		if err != nil {
			return err
		}
		if next >= b.lastEnd {
			return nil
		}
	}
}

// checksum is what a table is, whatever the order of its rows.
func (b *bench) checksum(ctx context.Context, db string) (sum string, err error) {
	conn, err := pgx.Connect(ctx, b.pg.AdminURL(db))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM public.orders t").Scan(&sum)
	return sum, err
}

// cpuSeconds is what this process has used.
func cpuSeconds() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(), nil
}
