package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/internal/topics"
	"github.com/tailrace/tailrace/deploy/testenv"
)

const (
	prefix      = "bigtx"
	endTopic    = prefix + ".transaction"
	rowTopic    = prefix + ".public.big"
	readyWithin = time.Minute
	idleLimit   = 10 * time.Minute // the longest that may pass from the commit to END
)

// bench is one run.
type bench struct {
	options
	dir     string
	pg      *testenv.Postgres
	kafka   *testenv.Kafka
	product *product.Product
	result  result
}

func run(ctx context.Context, o options) (_ *result, err error) {
	b := &bench{options: o}
	if b.dir, err = os.MkdirTemp("", "tailrace-bigtx-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if err := b.write(ctx); err != nil {
		return nil, err
	}
	if err := b.read(ctx); err != nil {
		return nil, err
	}
	return &b.result, nil
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.pg, err = testenv.StartPostgres(ctx, testenv.PGOptions{Settings: map[string]string{"max_wal_size": "8GB", "checkpoint_timeout": "1h"}}); err != nil {
		return err
	}
	if err := b.pg.Exec(ctx, "postgres", "CREATE TABLE big (id bigint PRIMARY KEY, body text NOT NULL)"); err != nil {
		return err
	}
	if b.kafka, err = testenv.StartKafka(ctx, testenv.KafkaOptions{}); err != nil {
		return err
	}
	cfg := product.Config{Dir: b.dir, Kafka: b.kafka.Addr(), Database: b.pg.AdminURL("postgres"), Prefix: prefix, Partitions: 4}
	if cfg.Bin, err = product.Build(ctx, b.dir, false); err != nil {
		return err
	}
	if b.product, err = product.New(cfg); err != nil {
		return err
	}
	if err := b.product.Start(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	return b.product.Ready(ready)
}

func (b *bench) close() error {
	var errs []error
	if b.product != nil {
		errs = append(errs, b.product.Close())
	}
	if b.kafka != nil {
		errs = append(errs, b.kafka.Close())
	}
	if b.pg != nil {
		errs = append(errs, b.pg.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// write commits the transaction, by one COPY.
func (b *bench) write(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.pg.AdminURL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	b.result.Rows = b.size / int64(b.row)
	b.result.Bytes = b.result.Rows * int64(b.row)
	fmt.Fprintf(os.Stderr, "writing %d rows\n", b.result.Rows)
	start := time.Now()
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"big"}, []string{"id", "body"}, &rows{left: b.result.Rows, body: make([]byte, b.row-keyBytes)})
	b.result.WriteSeconds = time.Since(start).Seconds()
	return err
}

const keyBytes = 8

// rows makes rows whose bodies differ and do not compress well.
type rows struct {
	left, id int64
	state    uint64
	body     []byte
}

func (r *rows) Next() bool {
	if r.left == 0 {
		return false
	}
	r.left--
	r.id++
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	for i := 0; i < len(r.body); i += 10 {
		r.state = r.state*6364136223846793005 + 1442695040888963407
		for j, bits := i, r.state>>4; j < min(i+10, len(r.body)); j, bits = j+1, bits>>6 {
			r.body[j] = digits[bits%64]
		}
	}
	return true
}

func (r *rows) Values() ([]any, error) { return []any{r.id, string(r.body)}, nil }
func (r *rows) Err() error             { return nil }

// read reads until the END record has come, and then notes the capture's peak memory.
func (b *bench) read(ctx context.Context) error {
	reader, err := topics.NewReader(b.kafka.Addr(), prefix)
	if err != nil {
		return err
	}
	defer reader.Close()
	seen := &seen{last: map[int32]judge.Mark{}}
	start, next := time.Now(), time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !seen.end {
		if err := reader.To(ctx, seen.take); err != nil {
			return err
		}
		if time.Now().After(next) {
			fmt.Fprintf(os.Stderr, "read %d rows\n", seen.rows)
			next = time.Now().Add(10 * time.Second)
		}
		if err := b.kill(seen); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-b.product.Done():
			b.result.Stopped = b.product.End() + "\n" + b.product.Log(2000)
			seen.end = true
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(start) > idleLimit {
			b.result.Stopped = "no END record after " + idleLimit.String() + "\n" + b.product.Log(2000)
			break
		}
	}
	b.result.Seconds = time.Since(start).Seconds()
	// Of the last Kafka transaction some partitions may become readable before others.
	if err := errors.Join(reader.Settled(ctx), reader.To(ctx, seen.take)); err != nil {
		return err
	}
	b.result.Rate = float64(b.result.Bytes) / (1 << 20) / b.result.Seconds
	b.result.Read, b.result.Faults, b.result.fault = seen.rows, seen.faults, seen.fault
	if b.result.Stopped != "" {
		return nil
	}
	return b.notePeak()
}

// kill kills the capture and starts it again, if it is time for that: the kills are spread
// evenly over the rows.
func (b *bench) kill(s *seen) error {
	if s.end || b.result.Kills == b.kills || s.rows < b.result.Rows*int64(b.result.Kills+1)/int64(b.kills+1) {
		return nil
	}
	b.result.Kills++
	fmt.Fprintf(os.Stderr, "kill at %d rows\n", s.rows)
	return errors.Join(b.notePeak(), b.product.Kill(), b.product.Start())
}

// notePeak notes the memory of the capture's running process, if none before took more.
func (b *bench) notePeak() error {
	peak, err := b.product.PeakMemory()
	b.result.RSS = max(b.result.RSS, float64(peak)/(1<<20))
	return err
}

// seen is what the reader has found so far.
type seen struct {
	rows   int64
	faults int
	fault  string // the first
	end    bool
	last   map[int32]judge.Mark
}

// take counts a record and checks that its partition counts on.
func (s *seen) take(r *kgo.Record) error {
	record := topics.MarkOnly(r)
	switch {
	case record.Foreign:
		s.note("%s/%d offset %d: %s", r.Topic, r.Partition, r.Offset, record.Fault)
	case r.Topic == endTopic:
		s.end = true
	case r.Topic == rowTopic:
		last := s.last[r.Partition]
		if record.Mark.N != last.N+1 || record.Mark.Order < last.Order || record.Mark.Order == last.Order && record.Mark.Row <= last.Row {
			s.note("%s/%d offset %d: n %d, row %d after n %d, row %d", r.Topic, r.Partition, r.Offset, record.Mark.N, record.Mark.Row, last.N, last.Row)
		}
		s.last[r.Partition] = record.Mark
		s.rows++
	}
	return nil
}

func (s *seen) note(format string, args ...any) {
	if s.faults++; s.faults == 1 {
		s.fault = fmt.Sprintf(format, args...)
	}
}
