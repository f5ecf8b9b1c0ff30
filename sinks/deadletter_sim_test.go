package sinks_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// world is a target in memory that notes what is applied, keeps positions and fences with
// it, refuses some keys, and fails at random before and after it has made a batch durable.
type world struct {
	mu        sync.Mutex
	rand      *mathrand.Rand
	positions map[sinks.Partition]sinks.Position
	fences    map[sinks.Partition]int
	applied   map[string][]int64 // by partition and key: offsets
	refused   map[int64]bool     // ids
	names     bool               // the sink names what is refused
	failures  int                // one in so many Applies fails; 0: none
	mutant    string
	applies   int
}

func newWorld(seed uint64) *world {
	return &world{
		rand: mathrand.New(mathrand.NewPCG(seed, 1)), positions: make(map[sinks.Partition]sinks.Position), fences: make(map[sinks.Partition]int),
		applied: make(map[string][]int64), refused: make(map[int64]bool), names: seed%2 == 0,
	}
}

type worldSink struct {
	*world
	taken map[sinks.Partition]int
}

func (s *worldSink) Take(_ context.Context, ps []sinks.Partition) (map[sinks.Partition]sinks.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[sinks.Partition]sinks.Position)
	for _, p := range ps {
		s.fences[p]++
		s.taken[p], out[p] = s.fences[p], s.positions[p]
	}
	return out, nil
}

// rowError is a refusal that names no row.
type rowError struct{ error }

func (rowError) OfRow() bool { return true }

var (
	errRefused = errors.New("the target does not take the row")
	errRandom  = errors.New("the target went away")
)

func (s *worldSink) Apply(_ context.Context, b *sinks.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies++
	for p := range b.Positions {
		if s.fences[p] != s.taken[p] {
			return sinks.ErrFenced
		}
	}
	if s.failures > 0 && s.rand.IntN(s.failures) == 0 {
		return errRandom
	}
	for _, c := range b.Changes {
		if !s.takes(c) && s.mutant != "skip" {
			if s.mutant == "overtake" {
				s.note(b.Changes)
			}
			if s.names {
				return &sinks.Refused{Change: c, Err: errRefused, Advice: "mend it"}
			}
			return rowError{errRefused}
		}
	}
	s.note(b.Changes)
	for p, at := range b.Positions {
		s.positions[p] = at
	}
	if s.failures > 0 && s.rand.IntN(s.failures) == 0 {
		return errRandom
	}
	return nil
}

func (s *worldSink) takes(c *sinks.Change) bool {
	return c.Key == nil || !s.refused[idOf(c.Key)]
}

func (s *worldSink) note(changes []*sinks.Change) {
	for _, c := range changes {
		if s.mutant == "skip" && !s.takes(c) {
			continue
		}
		name := laneName(c.Partition, c.Key)
		s.applied[name] = append(s.applied[name], c.Offset)
	}
}

func (s *worldSink) Close() error { return nil }

// idOf reads the long in a key.
func idOf(key []byte) int64 {
	var n uint64
	for i, b := range key[schemas.FrameSize:] {
		n |= uint64(b&0x7f) << (7 * i)
	}
	return int64(n>>1) ^ -int64(n&1)
}

func laneName(p sinks.Partition, key []byte) string {
	return fmt.Sprintf("%s/%d/%x", p.Topic, p.Number, key[min(len(key), schemas.FrameSize):])
}

// check says what is wrong with what was applied of the changes that were written: of each
// key all of them, in order, none twice, but for those that were dropped.
func check(written, applied map[string][]int64, dropped map[string]map[int64]bool) (wrong []string) {
	for name, offsets := range written {
		want := slices.DeleteFunc(slices.Clone(offsets), func(o int64) bool { return dropped[name][o] })
		if got := applied[name]; !slices.Equal(got, want) {
			wrong = append(wrong, fmt.Sprintf("%s: applied %v, want %v", name, got, want))
		}
	}
	return wrong
}

func memorySource(tb testing.TB) subscribe.Config {
	tb.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Close)
	client, err := stream.NewClient(stream.Config{Brokers: cluster.ListenAddrs(), Timeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	reg, err := registry.NewClient(registry.ClientConfig{URL: registrytest.Start(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(reg.Close)
	return subscribe.Config{Client: client, Registry: reg, MaxWait: 50 * time.Millisecond}
}

// sim is one run of the simulation.
type sim struct {
	*testing.T
	*sinktest.Writer
	world   *world
	source  subscribe.Config
	rand    *mathrand.Rand
	table   *sinktest.Table
	journal *sinktest.Table // without a key
	drops   bool
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{T: t, world: newWorld(seed), source: memorySource(t), rand: mathrand.New(mathrand.NewPCG(seed, 2))}
	s.Writer = sinktest.NewWriter(t, s.source, "sim")
	column := func(name string) schemas.Column {
		return schemas.Column{Name: name, Type: schemas.Type{Kind: schemas.Int64}, Nullable: name != "id"}
	}
	s.table = s.Table(&schemas.Table{Namespace: "public", Name: "t", Key: []int{0}, Columns: []schemas.Column{column("id"), column("v")}}, 3)
	s.journal = s.Table(&schemas.Table{Namespace: "public", Name: "j", Columns: []schemas.Column{column("id"), column("v")}}, 1)
	return s
}

// members run the sink until ctx ends; each is started again when it fails.
func (s *sim) members(ctx context.Context, n int) (wait func()) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			monitor := sinks.NewMonitor("s", nil)
			for ctx.Err() == nil {
				err := sinks.Run(ctx, sinks.Config{
					Name: "s", Prefix: "sim", Mode: sinks.Keys, DeadLetters: sinks.Park, Source: s.source, Monitor: monitor,
					Sink: func() (sinks.Sink, error) {
						return &worldSink{world: s.world, taken: make(map[sinks.Partition]int)}, nil
					},
					Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
				})
				if err != nil && sinks.IsFatal(err) {
					s.Errorf("a member stopped: %v", err)
					return
				}
			}
		})
	}
	return all.Wait
}

// write writes some transactions.
func (s *sim) write() {
	for range 1 + s.rand.IntN(4) {
		s.Begin()
		for range 1 + s.rand.IntN(20) {
			id := s.rand.IntN(12)
			c := sinktest.Change{Table: s.table, Op: "cud"[s.rand.IntN(3)], Row: []any{id, s.rand.IntN(100)}}
			if s.rand.IntN(10) == 0 {
				c = sinktest.Change{Table: s.journal, Op: 'c', Row: []any{id, 1}}
			}
			if c.Op == 'u' && s.rand.IntN(8) == 0 {
				c.OldKey = []any{s.rand.IntN(12)}
			}
			s.Write(&c)
		}
		s.End()
	}
	s.Flush()
}

func (s *sim) ask(r sinks.Request) {
	r.ID, r.Time = rand.Text(), time.Now()
	if _, err := sinks.AskDeadLetters(s.Context(), s.source.Client, "s", &r); err != nil {
		s.Fatal(err)
	}
}

// disturb changes what the target refuses, or asks for something.
func (s *sim) disturb() {
	switch s.rand.IntN(5) {
	case 0, 1:
		s.world.mu.Lock()
		id := int64(s.rand.IntN(12))
		s.world.refused[id] = !s.world.refused[id]
		s.world.mu.Unlock()
	case 2:
		s.ask(sinks.Request{Action: sinks.ActionRetry})
	case 3:
		s.ask(sinks.Request{Action: sinks.ActionRetry, Topics: []string{s.table.Topic}})
	case 4:
		if s.drops {
			s.ask(sinks.Request{Action: sinks.ActionDrop, WithWaiting: s.rand.IntN(2) == 0, Reason: "sim"})
		}
	}
}

// run writes and disturbs, then mends the target and asks until nothing is parked and all
// is applied. It returns what is wrong.
func (s *sim) run(steps int) []string {
	ctx, cancel := context.WithCancel(s.Context())
	wait := s.members(ctx, 2)
	defer func() {
		cancel()
		wait()
	}()
	until := func(what string, condition func() bool) {
		s.Helper()
		for deadline := time.Now().Add(time.Minute); !condition(); {
			if time.Now().After(deadline) {
				s.Fatalf("it is not %s", what)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	made := func() int { s.world.mu.Lock(); defer s.world.mu.Unlock(); return s.world.applies }
	for range steps {
		before := made()
		s.write()
		s.disturb()
		until("at work", func() bool { return made() > before })
	}
	s.world.mu.Lock()
	clear(s.world.refused)
	s.world.failures = 0
	s.world.mu.Unlock()
	written, ends := s.written()
	until("at the end", func() bool {
		s.world.mu.Lock()
		defer s.world.mu.Unlock()
		for p, end := range ends {
			if s.world.positions[p].Offset < end {
				return false
			}
		}
		return true
	})
	s.ask(sinks.Request{Action: sinks.ActionRetry})
	book := sinks.NewLetterBook("s")
	until("empty", func() bool {
		if err := book.Read(ctx, s.source.Client); err != nil {
			s.Fatal(err)
		}
		letters, err := book.Parked()
		if err != nil {
			s.Fatal(err)
		}
		return len(letters) == 0
	})
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return check(written, s.world.applied, s.dropped(book, written))
}

// written reads what was written, by key, and where the partitions end.
func (s *sim) written() (offsets map[string][]int64, ends map[sinks.Partition]int64) {
	offsets, ends = make(map[string][]int64), make(map[sinks.Partition]int64)
	for _, p := range []sinks.Partition{{Topic: s.table.Topic}, {Topic: s.table.Topic, Number: 1}, {Topic: s.table.Topic, Number: 2}, {Topic: s.journal.Topic}} {
		end, err := s.source.Client.ReadToEnd(s.Context(), p.Topic, p.Number, 0, func(r *stream.Record) error {
			name := laneName(p, r.Key)
			offsets[name] = append(offsets[name], r.Offset)
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
		ends[p] = end
	}
	return offsets, ends
}

// dropped returns what the letters say was dropped.
func (s *sim) dropped(book *sinks.LetterBook, written map[string][]int64) map[string]map[int64]bool {
	out := make(map[string]map[int64]bool)
	for name, offsets := range written {
		var p sinks.Partition
		parts := strings.Split(name, "/")
		p.Topic = parts[0]
		if _, err := fmt.Sscan(parts[1], &p.Number); err != nil {
			s.Fatal(err)
		}
		out[name] = make(map[int64]bool)
		for _, offset := range offsets {
			if _, o := book.Find(p, offset); o != nil && slices.Contains(o.Dropped, offset) {
				out[name][offset] = true
			}
		}
	}
	return out
}

// Whatever fails when, and whatever is asked for meanwhile: of each key all changes are
// applied, in order, none twice.
func TestDeadLetterInterleavings(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			s := newSim(t, seed)
			s.world.failures = []int{0, 12, 5}[seed%3]
			s.drops = seed%4 > 1
			for _, wrong := range s.run(25) {
				t.Error(wrong)
			}
			if len(s.world.applied) < 10 {
				t.Errorf("only %d keys were applied", len(s.world.applied))
			}
		})
	}
}

// The check sees what a sink does wrong.
func TestDeadLetterMutants(t *testing.T) {
	for _, mutant := range []string{"skip", "overtake"} {
		t.Run(mutant, func(t *testing.T) {
			s := newSim(t, 2)
			s.world.mutant = mutant
			for id := range int64(12) {
				s.world.refused[id] = true
			}
			if wrong := s.run(5); len(wrong) == 0 {
				t.Error("the check finds nothing wrong")
			}
		})
	}
}
