package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/internal/topics"
	"github.com/tailrace/tailrace/deploy/internal/workload"
	"github.com/tailrace/tailrace/deploy/testenv"
)

const (
	prefix       = "kill"
	database     = "bench"
	writers      = 4
	readyWithin  = 60 * time.Second
	drainWithin  = 3 * time.Minute
	settleWithin = 60 * time.Second
)

// bench is one run of the proof.
type bench struct {
	options
	dir     string
	pg      *testenv.Postgres
	kafka   *testenv.Kafka // nil on the embedded broker
	product *product.Product
	load    *workload.Load
	reader  *topics.Reader // of committed records between kills; nil on the embedded broker
	plan    plan
	target  *target // nil without
	reads   *reads  // nil without backfills
	result  result
}

func run(ctx context.Context, o options) (_ *result, err error) {
	dir, err := os.MkdirTemp("", "tailrace-kill-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, plan: plan{rng: rand.New(rand.NewPCG(o.seed, 99)), from: o.failpoints()}}
	b.result = newResult(o)
	start := time.Now()
	defer func() {
		err = errors.Join(err, b.close())
		if err != nil || !b.result.good() || o.keep {
			fmt.Println("logs and data are kept in", dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if err := b.torment(ctx); err != nil {
		return nil, err
	}
	if b.result.Stopped == "" {
		if err := b.judge(ctx); err != nil {
			return nil, err
		}
	}
	if b.target != nil {
		if err := b.target.rest(); err != nil {
			return nil, err
		}
		*b.result.verdict = b.target.found
	}
	b.result.Seconds = time.Since(start).Round(time.Millisecond).Seconds()
	if err := b.complete(); err != nil {
		return nil, err
	}
	return &b.result, nil
}

// start starts everything but the writers.
func (b *bench) start(ctx context.Context) (err error) {
	if b.pg, err = testenv.StartPostgres(ctx, testenv.PGOptions{Settings: map[string]string{"max_wal_size": "2GB"}}); err != nil {
		return err
	}
	if err := b.pg.Exec(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return err
	}
	if err := b.pg.Exec(ctx, database, workload.DDL()...); err != nil {
		return err
	}
	cfg := product.Config{Dir: b.dir, Database: b.pg.AdminURL(database), Prefix: prefix, Partitions: 4, Env: []string{"TAILRACE_MUTANT=" + b.mutant}}
	if b.backfill {
		if b.reads, err = fill(ctx, b.pg, b.rows, b.readRate); err != nil {
			return err
		}
		cfg.Snapshot, cfg.Readers, cfg.Rate = "initial", backfillReaders, b.readRate
	}
	if b.options.target != "" {
		cfg.Target, cfg.Mode = b.pg.AdminURL(targetDatabase), "transactions"
		if b.mutant == perKey {
			cfg.Mode = "keys"
		}
	}
	if b.broker == "kafka" {
		if b.kafka, err = testenv.StartKafka(ctx, testenv.KafkaOptions{}); err != nil {
			return err
		}
		cfg.Kafka = b.kafka.Addr()
		if b.reader, err = topics.NewReader(b.kafka.Addr(), prefix); err != nil {
			return err
		}
	}
	if b.options.target != "" {
		if b.target, err = watch(ctx, b.pg, cfg.Kafka); err != nil {
			return err
		}
	}
	if cfg.Bin, err = product.Build(ctx, b.dir, true); err != nil {
		return err
	}
	if b.product, err = product.New(cfg); err != nil {
		return err
	}
	if err := b.run(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	return b.product.Capturing(ready)
}

// run starts the capture's process, which is to end as attempts say.
func (b *bench) run(env ...string) error {
	if b.reads != nil {
		b.reads.starts = append(b.reads.starts, time.Now().UnixMilli())
	}
	return b.product.Start(env...)
}

func (b *bench) close() error {
	var errs []error
	if b.reads != nil {
		errs = append(errs, b.reads.rest())
	}
	if b.reader != nil {
		b.reader.Close()
	}
	if b.product != nil {
		errs = append(errs, b.product.Close())
	}
	if b.target != nil {
		errs = append(errs, b.target.rest())
	}
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.pg != nil {
		errs = append(errs, b.pg.Close())
	}
	return errors.Join(errs...)
}

// torment kills the capture while the writers write, then lets both finish.
func (b *bench) torment(ctx context.Context) error {
	logs := filepath.Join(b.dir, "writers")
	if err := os.Mkdir(logs, 0o700); err != nil {
		return err
	}
	b.load = workload.New(workload.Config{URL: b.pg.AdminURL(database), Prefix: prefix, Dir: logs, Writers: writers, Rate: b.rate, Seed: b.seed, Filled: b.backfill})
	stop, wrote := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		err := b.load.Run(ctx, stop)
		if err != nil {
			cancel() // without writers the kills prove nothing
		}
		wrote <- err
	}()
	err := b.reads.begin(ctx, b.product, b.pg, b.seed)
	if err == nil {
		err = b.kills(ctx)
	}
	if err == nil && b.result.Stopped == "" {
		err = b.fill(ctx)
	}
	err = errors.Join(err, b.reads.rest())
	close(stop)
	writeErr := <-wrote
	b.result.Changes = int(b.load.Changes())
	return errors.Join(err, writeErr)
}

// kills kills the capture and starts it again, as often as asked for.
func (b *bench) kills(ctx context.Context) error {
	at := attempt{after: time.Second} // the first run has no failpoint
	for b.result.Kills < b.options.kills {
		killed, err := b.endAt(ctx, at)
		if err != nil || !killed {
			return err
		}
		b.result.Kills++
		if b.reads != nil {
			b.reads.kills = append(b.reads.kills, time.Now())
		}
		if b.result.Kills%10 == 0 {
			fmt.Fprintf(os.Stderr, "%d kills, %d changes\n", b.result.Kills, b.load.Changes())
		}
		if err := b.cut(ctx); err != nil {
			return err
		}
		if b.target != nil {
			if err := b.target.forget(ctx); err != nil {
				return fmt.Errorf("take the dead member out of the sink's group: %w", err)
			}
		}
		at = b.plan.draw()
		if b.result.Kills == b.options.kills {
			at = attempt{}
		}
		if err := b.run(at.env()...); err != nil {
			return err
		}
	}
	return nil
}

// endAt waits for the running capture's end as at says; false: it ended by itself.
func (b *bench) endAt(ctx context.Context, at attempt) (bool, error) {
	timer := time.NewTimer(at.wait())
	defer timer.Stop()
	for late := time.Now().Add(at.wait() + patience); ; {
		select {
		case <-b.product.Done():
			if !b.product.Killed() {
				b.stopped()
				return false, nil
			}
			if at.failpoint == "" {
				return false, errors.New("somebody else killed the capture")
			}
			b.result.Failpoints[at.failpoint]++
			return true, nil
		case <-timer.C:
			if b.reads.idle() && time.Now().Before(late) {
				timer.Reset(10 * time.Millisecond)
				continue
			}
			if err := b.product.Kill(); err != nil {
				return false, err
			}
			if !b.product.Killed() { // it ended by itself in the same moment
				b.stopped()
				return false, nil
			}
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// stopped notes that the product has ended by itself.
func (b *bench) stopped() {
	b.result.Stopped = b.product.End() + ": " + why(b.product.Log(2000))
}

// cut judges, while the capture is dead, what a reader of committed records sees. Apache
// Kafka only: the embedded broker is dead too, and its torn commits are for the next start
// to mend.
func (b *bench) cut(ctx context.Context) error {
	if b.reader == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	if err := b.reader.Settled(ctx); err != nil {
		return err
	}
	var fresh []*judge.Record
	err := b.reader.To(ctx, func(r *kgo.Record) error {
		fresh = append(fresh, topics.MarkOnly(r))
		return nil
	})
	if err != nil {
		return err
	}
	b.result.Cuts++
	for _, torn := range judge.Cut(fresh) {
		b.result.Torn++
		b.result.detail(fmt.Sprintf("torn after kill %d: %s", b.result.Kills, torn))
	}
	return nil
}

// fill lets the writers go on until there are as many changes as asked for.
func (b *bench) fill(ctx context.Context) error {
	b.load.Hurry()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for b.load.Changes() < int64(b.options.changes) {
		select {
		case <-tick.C:
		case <-b.product.Done():
			b.stopped()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// judge waits until the capture has written everything, reads all of it anew and counts
// what is wrong.
func (b *bench) judge(ctx context.Context) error {
	if b.reads != nil {
		if err := b.settle(ctx); err != nil || b.result.Stopped != "" {
			return err
		}
	}
	barrier, err := b.barrier(ctx)
	if err != nil {
		return err
	}
	if err := b.drain(ctx); err != nil || b.result.Stopped != "" {
		return err
	}
	if err := b.judgeTarget(ctx); err != nil || b.result.Stopped != "" {
		return err
	}
	transactions, err := b.load.Transactions()
	if err != nil {
		return err
	}
	reader, err := topics.NewReader(b.product.Broker(), prefix)
	if err != nil {
		return err
	}
	defer reader.Close()
	decoder := topics.NewDecoder(topics.NewRegistry(b.product.Registry()), prefix)
	var records []*judge.Record
	err = reader.To(ctx, func(r *kgo.Record) error {
		record, err := decoder.Decode(ctx, r)
		records = append(records, record)
		return err
	})
	if err != nil {
		return err
	}
	facts, err := b.facts(ctx)
	if err != nil {
		return err
	}
	b.result.take(judge.Judge(append(transactions, barrier), records, facts))
	return nil
}

// barrier commits a row behind everything else.
func (b *bench) barrier(ctx context.Context) (judge.Transaction, error) {
	tx := judge.Transaction{Outcome: judge.OK, Changes: []judge.Change{{Topic: barrierTopic, Op: "insert", Key: "1", Ver: 1}}}
	conn, err := pgx.Connect(ctx, b.pg.AdminURL(database))
	if err != nil {
		return tx, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, "INSERT INTO barrier VALUES (1, 0, 0, 1, '') RETURNING pg_current_xact_id()::text::bigint").Scan(&tx.ID)
	return tx, err
}

const barrierTopic = prefix + ".public.barrier"

// drain waits until the barrier's row and its END record can be read.
func (b *bench) drain(ctx context.Context) error {
	reader, err := topics.NewReader(b.product.Broker(), prefix)
	if err != nil {
		return err
	}
	defer func() { reader.Close() }()
	deadline := time.NewTimer(drainWithin)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	row, last := uint64(0), uint64(0)
	for row == 0 || last < row {
		// A broker that is still starting answers with errors; the deadline bounds that.
		err := reader.To(ctx, func(r *kgo.Record) error {
			switch record := topics.MarkOnly(r); {
			case record.Mark.IsEnd:
				last = max(last, record.Mark.Order)
			case r.Topic == barrierTopic:
				row = record.Mark.Order
			}
			return nil
		})
		if err != nil {
			reader.Close()
			if reader, err = topics.NewReader(b.product.Broker(), prefix); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-b.product.Done():
			b.stopped()
			return nil
		case <-deadline.C:
			b.result.Stopped = fmt.Sprintf("no end in sight after %s: %s", drainWithin, why(b.product.Log(2000)))
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// judgeTarget waits until the barrier's row is in the target, too, and compares the tables.
func (b *bench) judgeTarget(ctx context.Context) error {
	if b.target == nil {
		return nil
	}
	deadline := time.NewTimer(drainWithin)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if there, err := b.target.arrived(ctx); err != nil {
			return err
		} else if there {
			break
		}
		if b.result.Stopped = b.product.Stopped(ctx); b.result.Stopped != "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-b.product.Done():
			b.stopped()
			return nil
		case <-deadline.C:
			b.result.Stopped = fmt.Sprintf("the end does not reach the target in %s: %s", drainWithin, why(b.product.Log(2000)))
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	different, err := b.target.compare(ctx)
	if err != nil {
		return err
	}
	b.result.details = append(b.result.details, different...)
	return nil
}

// minPolls is how often the target must have been looked at.
const minPolls = 100

// complete fails if the run does not prove what it is there for.
func (b *bench) complete() error {
	if b.target != nil && b.result.Stopped == "" && b.result.Polls < minPolls {
		return fmt.Errorf("the target was looked at %d times only", b.result.Polls)
	}
	if b.reads != nil && b.result.Stopped == "" && b.result.UnderWay < b.result.Kills && b.mutant == "" {
		return fmt.Errorf("a backfill was under way at %d of %d kills only", b.result.UnderWay, b.result.Kills)
	}
	if b.result.Stopped != "" || b.options.kills < 5*len(b.plan.from) {
		return nil
	}
	for _, name := range b.plan.from {
		if b.result.Failpoints[name] == 0 {
			return fmt.Errorf("the failpoint %s was never hit in %d kills", name, b.result.Kills)
		}
	}
	return nil
}
