package sinktest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// Target is a sink under test. Each of its functions may be called often, Source and Sink
// also while an earlier sink still lives.
type Target struct {
	Source func(testing.TB) subscribe.Config // an empty broker and registry
	// New makes an empty target and returns how sinks to it are made, by name, and how a table
	// of schema public in it reads: its rows, columns joined by |, null as \N, in the order
	// of the text. It is given the source, for sinks that keep their positions there.
	New func(testing.TB, subscribe.Config) (sink func(name string) (sinks.Sink, error), read func(testing.TB, string) []string)
	// ByKey says that the target has no transactions: the sink runs in mode Keys only, and
	// delivers at least once. Its target is one that knows a change when it comes again. What
	// only a target with transactions can do is not asked of it.
	ByKey bool
	// Refuse has the target that New made last refuse rows of table items whose v is Poison,
	// or take them again.
	Refuse func(tb testing.TB, refuse bool)
}

// Poison is the value of v that Target.Refuse is about.
const Poison = 666

// demand is what a case asks of a target.
type demand uint8

const (
	ofAll            demand = iota
	ofTransactions          // rows and position durable at once, or neither
	ofNoTransactions        // what holds instead without
)

// Run runs the suite.
func Run(t *testing.T, target Target) {
	mode, other := sinks.Transactions, ofNoTransactions
	if target.ByKey {
		mode, other = sinks.Keys, ofTransactions
	}
	for _, c := range []struct {
		name string
		of   demand
		test func(*fixture)
	}{
		{"rows", ofAll, testRows},
		{"duplicate batch", ofAll, testDuplicate},
		{"reorder", ofAll, testReorder},
		{"poison row", ofTransactions, testPoison},
		{"poison row by key", ofAll, testPoisonKeys},
		{"schema change", ofAll, testSchemaChange},
		{"new table", ofAll, testNewTable},
		{"new table by key", ofTransactions, testNewTableKeys},
		{"standby", ofAll, testStandby},
		{"truncate", ofAll, testTruncate},
		{"truncate of a backfill", ofAll, testTruncateOutside},
		{"truncate by key", ofAll, testTruncateKeys},
		{"key change", ofAll, testKeyChange},
		{"key change with unchanged", ofTransactions, testKeyChangeUnchanged},
		{"unchanged", ofAll, testUnchanged},
		{"unchanged of a missing row", ofTransactions, testUnchangedMissing},
		{"crash before flush", ofTransactions, testCrashBefore},
		{"crash after flush", ofAll, testCrashAfter},
		{"fence", ofTransactions, testFence},
		{"fence after delivery", ofNoTransactions, testFenceLate},
		{"pieces", ofTransactions, testPieces},
		{"recreated topic", ofAll, testRecreated},
		{"dead letters", ofAll, testDeadLetters},
		{"dead letters of key changes", ofAll, testDeadKeyChange},
		{"dead letters and TRUNCATE", ofAll, testDeadTruncate},
		{"dropped dead letters", ofAll, testDeadDrop},
		{"too many dead letters", ofAll, testDeadTooMany},
		{"resolve a row that is refused", ofAll, testResolveRefused},
		{"resolve a row of a backfill that is refused", ofAll, testResolveRefusedRead},
		{"resolve a large transaction that is refused", ofTransactions, testResolveRefusedLarge},
		{"resolve records that cannot be read", ofAll, testResolvePoison},
		{"resolve a gap", ofAll, testResolveGap},
		{"resolve dead letters that are gone", ofAll, testResolveLetters},
		{"resolve refuses", ofAll, testResolveRefuses},
	} {
		if c.of == other {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			f := &fixture{T: t, source: target.Source(t), mode: mode}
			f.Writer = NewWriter(t, f.source, fmt.Sprintf("shop%d", time.Now().UnixNano()))
			f.sink, f.read = target.New(t, f.source)
			f.refuse = func(refuse bool) { target.Refuse(t, refuse) }
			c.test(f)
		})
	}
}

type fixture struct {
	*testing.T
	*Writer
	source subscribe.Config
	mode   sinks.Mode // in which the target's sinks run
	sink   func(string) (sinks.Sink, error)
	read   func(testing.TB, string) []string
	refuse func(bool)
}

// items is a table with a key, a value and a text that may be left out.
func items() *schemas.Table {
	return &schemas.Table{Namespace: "public", Name: "items", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "v", Type: schemas.Type{Kind: schemas.Int32}, Nullable: true},
		{Name: "note", Type: schemas.Type{Kind: schemas.String}, Nullable: true},
	}}
}

// waitTime bounds how long a sink may take to do what a test waits for.
const waitTime = 30 * time.Second

// config is that of a sink.
func (f *fixture) config(mode sinks.Mode) sinks.Config {
	return sinks.Config{
		Name: "s", Prefix: f.Prefix, Mode: mode, Source: f.source, Monitor: sinks.NewMonitor("s", nil),
		Sink: func() (sinks.Sink, error) { return f.sink("s") }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// start runs a sink; stop ends it and returns what it said, ended does when it has ended by
// itself.
func (f *fixture) start(cfg sinks.Config) (stop, ended func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var said error
	go func() {
		defer close(done)
		if said = sinks.Run(ctx, cfg); said != nil {
			f.Logf("the sink ended: %v", said)
		}
	}()
	stop = func() error {
		cancel()
		<-done
		return said
	}
	ended = func() error {
		f.T.Helper()
		select {
		case <-done:
		case <-time.After(waitTime):
			f.Fatal("the sink goes on")
		}
		return said
	}
	f.Cleanup(func() { stop() })
	return stop, ended
}

// want waits until a table reads so.
func (f *fixture) want(table string, rows ...string) {
	f.T.Helper()
	rows = slices.Sorted(slices.Values(rows))
	var got []string
	for deadline := time.Now().Add(waitTime); time.Now().Before(deadline); {
		if got = f.read(f.T, table); slices.Equal(got, rows) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	f.Fatalf("%s reads %q, want %q", table, got, rows)
}

// wantCount waits until a table has so many rows.
func (f *fixture) wantCount(table string, rows int) {
	f.T.Helper()
	got := 0
	for deadline := time.Now().Add(waitTime); time.Now().Before(deadline); {
		if got = len(f.read(f.T, table)); got == rows {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	f.Fatalf("%s has %d rows, want %d", table, got, rows)
}

// change is shorthand for a change of items.
func change(t *Table, op byte, row ...any) Change {
	for len(row) < len(t.Columns) {
		row = append(row, nil)
	}
	return Change{Table: t, Op: op, Row: row}
}

// batch reads all that is in the topics and returns it, in the order of the transactions.
func (f *fixture) batch(from map[sinks.Partition]sinks.Position, tables ...*Table) *sinks.Batch {
	f.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	var ps []subscribe.FeedPartition
	left := 0
	for _, t := range tables {
		for n := range t.partitions {
			p := sinks.Partition{Topic: t.Topic, Number: n}
			ps = append(ps, subscribe.FeedPartition{Partition: p, From: from[p]})
			left += int(f.n[p] - from[p].N)
		}
	}
	feed, err := subscribe.NewFeed(ctx, f.source, ps)
	if err != nil {
		f.Fatal(err)
	}
	defer feed.Close()
	out := &sinks.Batch{Positions: make(map[sinks.Partition]sinks.Position)}
	for left > 0 {
		b, err := feed.Next(ctx)
		if err != nil {
			f.Fatal(err)
		}
		for i := range b.Changes {
			out.Changes = append(out.Changes, &b.Changes[i])
			left--
		}
		out.Positions[b.Partition] = b.Position()
	}
	slices.SortStableFunc(out.Changes, func(a, b *sinks.Change) int { return a.Mark.Place.Compare(b.Mark.Place) })
	return out
}

// open makes a sink and takes the partitions of tables.
func (f *fixture) open(tables ...*Table) (sinks.Sink, map[sinks.Partition]sinks.Position) {
	f.T.Helper()
	s, err := f.sink("s")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	var ps []sinks.Partition
	for _, t := range tables {
		for n := range t.partitions {
			ps = append(ps, sinks.Partition{Topic: t.Topic, Number: n})
		}
	}
	at, err := s.Take(context.Background(), ps)
	if err != nil {
		f.Fatal(err)
	}
	return s, at
}

func (f *fixture) apply(s sinks.Sink, b *sinks.Batch) {
	f.T.Helper()
	if err := s.Apply(context.Background(), b); err != nil {
		f.Fatal(err)
	}
}
