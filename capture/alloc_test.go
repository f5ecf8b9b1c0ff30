package capture

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// drained is a pipeline whose sender throws away what it is given.
func drained(t testing.TB) (*pipeline, *Route) {
	cfg := newConfigOnly()
	s := emptyState()
	s.positions[0] = &positionState{G: 1, Epoch: 1, Snapshot: snapshotNone}
	for topic, n := range map[string]int32{"p.public.t0": 4, "p.transaction": 1} {
		s.routing.Topics[topic] = topicState{Partitions: n, Collection: "public.t0"}
	}
	st, err := choose(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	prog := newProgress(s, st, nil)
	p := &pipeline{cfg: cfg, log: cfg.Log, prog: prog, routes: newRoutes(cfg, s, prog),
		send: newSender(cfg, nil, Position{}, func(Position) {}), confirm: func(Position) {}}
	p.group = <-p.send.empty
	p.engine = newEngine(p, &fakeSource{log: newFakeLog()}, s, 0)
	p.end.topic = p.routes.topics["p.transaction"]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for g := range p.send.queue {
			for _, o := range g.out {
				if err := o.batch.Seal(stream.None, false); err != nil {
					t.Error(err)
				}
			}
			g.reset()
			p.send.empty <- g
		}
	}()
	t.Cleanup(func() {
		close(p.send.queue)
		<-done
	})
	p.send.busy.Store(true) // groups go when they are full
	return p, &Route{Table: fakeTable("t0", 0), Topic: "p.public.t0", KeyID: 1, ValueID: 2, topic: p.routes.topics["p.public.t0"]}
}

func newConfigOnly() *Config {
	c := (&testCluster{}).config(newFakeLog(), true)
	if err := (&c).validate(); err != nil {
		// no broker and no registry: nothing here asks for them
		c.TransactionTimeout = 60e9
	}
	return &c
}

// rows makes changes of a plausible size.
func rows(r *Route, n int) []Change {
	rnd := rand.New(rand.NewPCG(1, 1))
	src := &fakeSource{w: schemas.NewSourceWriter(schemas.SourceConfig{Version: "v", Connector: "postgresql", Name: "p", Database: "d"})}
	src.w.SetTransaction(schemas.SourceTx{ID: 1, CommitMicros: 1})
	all := make([]Change, n)
	for i := range all {
		row := fakeRow{table: "t0", key: rnd.Int64N(1e6), op: 'c', text: strings.Repeat("x", 100)}
		all[i] = Change{Route: r, Op: 'c',
			Key:   schemas.AppendLong(schemas.AppendFrame(nil, r.KeyID), row.key),
			Value: src.encode(nil, r, row, uint64(i))}
	}
	return all
}

// Steps 6 and 7 of the way of a row allocate nothing.
func TestChangeAllocatesNothing(t *testing.T) {
	p, r := drained(t)
	changes := rows(r, 1000)
	ctx := context.Background()
	pos := uint64(0)
	transaction := func() {
		pos += 100
		if err := p.Begin(&Tx{Pos: pos, ID: "7:8", CommitTime: 1}); err != nil {
			t.Fatal(err)
		}
		for i := range changes {
			if err := p.Change(ctx, &changes[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit := func() {
		if err := p.Commit(ctx, Position{Offset: pos + 50}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 { // let the batches grow
		transaction()
		commit()
	}
	p.group.commits = 0
	// The whole number of allocations per 1,000 rows: what a group of 4 MiB costs is less.
	if got := testing.AllocsPerRun(1000, func() { transaction(); p.open = false }); got > 0 {
		t.Fatalf("%v allocations in 1000 rows", got)
	}
}

func BenchmarkChange(b *testing.B) {
	p, r := drained(b)
	changes := rows(r, 1000)
	ctx := context.Background()
	b.ReportAllocs()
	b.SetBytes(int64(len(changes[0].Key) + len(changes[0].Value)))
	pos := uint64(0)
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			if p.open {
				if err := p.Commit(ctx, Position{Offset: pos + 50}); err != nil {
					b.Fatal(err)
				}
			}
			pos += 100
			if err := p.Begin(&Tx{Pos: pos, ID: "7:8", CommitTime: 1}); err != nil {
				b.Fatal(err)
			}
		}
		if err := p.Change(ctx, &changes[i%1000]); err != nil {
			b.Fatal(err)
		}
	}
}
