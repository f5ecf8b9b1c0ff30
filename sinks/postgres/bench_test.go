package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// orders is a table as a shop has it.
func orders() *schemas.Table {
	k := func(kind schemas.Kind) schemas.Type { return schemas.Type{Kind: kind, Precision: 6} }
	return &schemas.Table{Namespace: "public", Name: "orders", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: k(schemas.Int64)}, {Name: "customer", Type: k(schemas.Int64)}, {Name: "status", Type: k(schemas.String)},
		{Name: "total", Type: schemas.Type{Kind: schemas.Decimal, Precision: 12, Scale: 2}}, {Name: "placed", Type: k(schemas.ZonedTimestamp)},
		{Name: "paid", Type: k(schemas.Bool)}, {Name: "note", Type: k(schemas.String), Nullable: true}, {Name: "day", Type: k(schemas.Date)},
	}}
}

func order(t *sinktest.Table, op byte, id int) sinktest.Change {
	return sinktest.Change{Table: t, Op: op, Row: []any{id, id * 7, "shipped", fmt.Sprintf("%d.%02d", id, id%100), id * 1_000_000, id%2 == 0, "leave it at the door, please", id % 20_000}}
}

// read returns everything in the table's topic as one batch.
func read(b *testing.B, src subscribe.Config, topic string, records int) *sinks.Batch {
	b.Helper()
	feed, err := subscribe.NewFeed(b.Context(), src, []subscribe.FeedPartition{{Partition: sinks.Partition{Topic: topic}}})
	if err != nil {
		b.Fatal(err)
	}
	defer feed.Close()
	out := &sinks.Batch{Positions: make(map[sinks.Partition]sinks.Position)}
	for len(out.Changes) < records {
		got, err := feed.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for i := range got.Changes {
			out.Changes = append(out.Changes, &got.Changes[i])
		}
		out.Positions[got.Partition] = got.Position()
	}
	return out
}

// benchBatch is a sink and a batch of inserts for it.
func benchBatch(b *testing.B, rows int) (*Sink, *sinks.Batch) {
	bb := testbench(b)
	tab := bb.w.Table(orders(), 1)
	bb.w.Begin()
	for i := range rows {
		c := order(tab, 'c', i)
		bb.w.Write(&c)
		if i%2000 == 1999 {
			bb.w.Flush()
		}
	}
	bb.w.End()
	bb.w.Flush()
	s, err := New(Config{Name: "s", URL: bb.url})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	if _, err := s.Take(b.Context(), []sinks.Partition{{Topic: tab.Topic}}); err != nil {
		b.Fatal(err)
	}
	return s, read(b, bb.src, tab.Topic, rows)
}

// BenchmarkApply is a batch of 20,000 inserts: what the target takes included. The metric copy
// is the same rows by one COPY into a temporary table and one INSERT … ON CONFLICT.
func BenchmarkApply(b *testing.B) {
	const rows = 20_000
	s, batch := benchBatch(b, rows)
	var copied time.Duration
	for b.Loop() {
		if err := s.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.exec(b.Context(), "truncate orders"); err != nil {
			b.Fatal(err)
		}
		copied += yardstick(b, s, batch)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
	b.ReportMetric(float64(copied.Nanoseconds())/float64(b.N*rows), "copy-ns/row")
}

// yardstick writes the batch's rows, encoded before, as the database itself would.
func yardstick(b *testing.B, s *Sink, batch *sinks.Batch) time.Duration {
	b.Helper()
	p := s.plans[batch.Changes[0].Table]
	p.fold.reset()
	a := &applier{s: s}
	for _, c := range batch.Changes {
		if err := a.put(p, c); err != nil {
			b.Fatal(err)
		}
	}
	defer p.fold.reset()
	began := time.Now()
	if err := s.exec(b.Context(), "begin"); err != nil {
		b.Fatal(err)
	}
	if err := (writer{s, p}).upserts(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := s.exec(b.Context(), "commit; truncate orders"); err != nil {
		b.Fatal(err)
	}
	p.dirty = false
	return time.Since(began)
}

// BenchmarkEncode is Avro to COPY text and the fold, without the target.
func BenchmarkEncode(b *testing.B) {
	const rows = 20_000
	s, batch := benchBatch(b, rows)
	if err := s.Apply(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
	p := s.plans[batch.Changes[0].Table]
	a := &applier{s: s}
	b.ReportAllocs()
	for b.Loop() {
		p.fold.reset()
		for _, c := range batch.Changes {
			if err := a.put(p, c); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
}

type benched struct {
	src subscribe.Config
	w   *sinktest.Writer
	url string
}

func testbench(b *testing.B) *benched {
	src := source(b)
	pg := testenv.SharedPostgres(b)
	return &benched{src, sinktest.NewWriter(b, src, "shop"), pg.AdminURL(pg.CreateDatabase(b))}
}
