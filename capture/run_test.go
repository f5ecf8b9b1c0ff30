package capture

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

func modes(t *testing.T, fn func(t *testing.T, transactional bool, c *testCluster)) {
	t.Run("transactional", func(t *testing.T) { fn(t, true, newCluster(t)) })
	t.Run("idempotent", func(t *testing.T) {
		b, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		fn(t, false, dial(t, []string{b.Addr()}))
	})
}

// runUntil runs a capture until the log is confirmed to its end, starting it again after
// each errFake, then stops it.
func runUntil(t *testing.T, cfg Config, log *fakeLog) (runs int) {
	t.Helper()
	for {
		runs++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		go func() {
			for ctx.Err() == nil && log.confirmedAt().Compare(log.end()) < 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		err := Run(ctx, cfg)
		late := ctx.Err() == context.DeadlineExceeded
		cancel()
		switch {
		case late:
			t.Fatalf("not confirmed to the end: %v of %v: %v", log.confirmedAt(), log.end(), err)
		case errors.Is(err, errFake):
			continue
		case err != nil:
			t.Fatal(err)
		}
		return runs
	}
}

func TestRunWritesEveryChangeOnce(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(1, 2))
		log := newFakeLog()
		left := 40 // broken connections
		log.failAt = func() bool {
			if left > 0 && rnd.IntN(60) == 0 {
				left--
				return true
			}
			return false
		}
		runs := 0
		for range 4 {
			log.addRandom(rnd, 150)
			log.add(fakeRow{table: "t0", op: 't'}, fakeRow{table: "t0", key: 3, op: 'c', text: "x"})
			runs += runUntil(t, c.config(log, transactional), log)
		}
		if runs < 30 {
			t.Fatalf("only %d runs", runs)
		}
		c.check(t, log)
	})
}

// A source transaction larger than the bounds is spread over several commits, and the
// position stays before it until it is whole.
func TestRunSplitsLargeTransactions(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.add(fakeRow{table: "t0", key: 1, op: 'c', text: "a"})
		text := strings.Repeat("x", 300_000)
		var rows []fakeRow
		for i := range int64(400) { // 120 MB
			rows = append(rows, fakeRow{table: "t0", key: i, op: 'c', text: text})
		}
		log.add(rows...)
		broken := 0
		seen := 0
		log.failAt = func() bool {
			if seen++; seen == 350 || seen == 600 {
				broken++
				return true
			}
			return false
		}
		runUntil(t, c.config(log, transactional), log)
		if broken == 0 {
			t.Fatal("the connection never broke")
		}
		c.check(t, log)
	})
}

// Nothing is confirmed that is not durable, and while changes flow only what lies one
// commit back.
func TestConfirmedIsDurable(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.addRandom(rand.New(rand.NewPCG(3, 4)), 300)
		cfg := c.config(log, transactional)
		cfg.Source = func() (Source, error) {
			src, err := log.source()
			return &confirmChecker{Source: src, check: func(p Position) {
				records, err := c.client.LoadState(context.WithoutCancel(t.Context()), cfg.StateTopic())
				if err != nil {
					t.Error(err)
					return
				}
				s, err := parseState(records)
				if err != nil {
					t.Error(err)
					return
				}
				if s.newest().Position.Compare(p) < 0 {
					t.Errorf("confirmed %v, durable is %v", p, s.newest().Position)
				}
				for _, pos := range s.positions {
					if pos != nil && pos.Position.Compare(p) < 0 {
						t.Errorf("confirmed %v, a start may go back to %v", p, pos.Position)
					}
				}
			}}, err
		}
		runUntil(t, cfg, log)
		c.check(t, log)
	})
}

type confirmChecker struct {
	Source
	check func(Position)
}

func (c *confirmChecker) Confirm(p Position) {
	c.check(p)
	c.Source.Confirm(p)
}

// stops runs a capture that must stop by itself, for good and with a hint.
func stops(t *testing.T, cfg Config, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := Run(ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, want %q", err, want)
	}
	if !IsFatal(err) || HintOf(err) == "" {
		t.Fatalf("fatal %v, hint %q: %v", IsFatal(err), HintOf(err), err)
	}
}

func produce(t *testing.T, c *testCluster, topic string, b *stream.Batch) {
	t.Helper()
	prod, err := c.client.NewProducer(t.Context(), stream.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(stream.None, false); err != nil {
		t.Fatal(err)
	}
	if err := prod.Produce(t.Context(), []*stream.Outgoing{{Topic: topic, Batch: b}}); err != nil {
		t.Fatal(err)
	}
}

// A replay whose rows differ from the topic's end is from another log.
func TestContradictionStops(t *testing.T) {
	c := newCluster(t)
	log := newFakeLog()
	log.addRandom(rand.New(rand.NewPCG(7, 8)), 10)
	log.add(fakeRow{table: "t1", key: 1, op: 'c', text: "a"}, fakeRow{table: "t1", key: 2, op: 'c', text: "b"})
	cfg := c.config(log, true)
	runUntil(t, cfg, log)
	// The state goes back to the first position; the topics stay.
	s := loadTestState(t, c, &cfg)
	first := *s.newest()
	first.Position, first.Order = Position{Offset: 50}, order{}
	log.confirmed = first.Position
	var b stream.Batch
	for slot := range 2 {
		if err := b.Append(1, []byte(positionKey(slot)), mustJSON(first), nil); err != nil {
			t.Fatal(err)
		}
	}
	produce(t, c, cfg.StateTopic(), &b)
	last := &log.txs[len(log.txs)-1]
	for _, harm := range []struct {
		name string
		do   func(r *fakeRow)
	}{
		{"other key", func(r *fakeRow) { r.key = 77 }},
		{"other operation", func(r *fakeRow) { r.op = 'u' }},
	} {
		t.Run(harm.name, func(t *testing.T) {
			was := last.rows[1]
			defer func() { last.rows[1] = was }()
			harm.do(&last.rows[1])
			stops(t, cfg, "does not come from this log")
		})
	}
	t.Run("gone", func(t *testing.T) {
		was := last.rows
		defer func() { last.rows = was }()
		last.rows = last.rows[:1]
		stops(t, cfg, "does not come from this log")
	})
	runUntil(t, cfg, log) // as it was: everything is dropped
	c.check(t, log)
}

func loadTestState(t *testing.T, c *testCluster, cfg *Config) *state {
	t.Helper()
	records, err := c.client.LoadState(t.Context(), cfg.StateTopic())
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseState(records)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A second capture of the same name fences the first, which must not start again.
func TestFencedEndsTheRun(t *testing.T) {
	c := newCluster(t)
	log := newFakeLog()
	log.addRandom(rand.New(rand.NewPCG(9, 9)), 5)
	cfg := c.config(log, true)
	ended := make(chan error, 1)
	go func() { ended <- Run(t.Context(), cfg) }()
	waitFor(t, func() bool { return log.confirmedAt() == log.end() })
	if _, err := c.client.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: cfg.TransactionalID()}); err != nil {
		t.Fatal(err)
	}
	log.addRandom(rand.New(rand.NewPCG(9, 10)), 5)
	select {
	case err := <-ended:
		if !errors.Is(err, stream.ErrFenced) || !IsFatal(err) {
			t.Fatalf("got %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("still running")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("waited too long")
		}
		time.Sleep(time.Millisecond)
	}
}
