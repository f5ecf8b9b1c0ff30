package subscribe_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

func (w *world) transactions(tables ...*table) subscribe.TransactionsConfig {
	return subscribe.TransactionsConfig{Config: w.config(), End: subscribe.FeedPartition{Partition: w.end()}, Partitions: w.partitions(tables...)}
}

// line says what a transaction is: its changes, "outside" or the id before.
func line(t testing.TB, rows *subscribe.Rows, tx *subscribe.Transaction) string {
	t.Helper()
	var all []string
	for _, c := range tx.Changes {
		all = append(all, text(t, rows, c))
	}
	s := "outside: "
	if !tx.Outside {
		s = tx.ID[:strings.IndexByte(tx.ID, ':')] + ": "
	}
	if !tx.Last {
		s = "piece of " + s
	}
	return s + strings.Join(all, ", ")
}

// collect reads transactions until they have n changes, and notes the positions
// after them. What stands outside may come in pieces; it is one line for each
// partition.
func collect(t testing.TB, cfg subscribe.TransactionsConfig, n int) (lines []string, after map[stream.Partition]subscribe.Position) {
	t.Helper()
	after = make(map[stream.Partition]subscribe.Position)
	var rows subscribe.Rows
	var outside stream.Partition // of the last line
	for tx, err := range subscribe.Transactions(testContext(t), cfg) {
		if err != nil {
			t.Fatalf("after %q: %v", lines, err)
		}
		for p, pos := range tx.Positions {
			after[p] = pos
		}
		if len(tx.Changes) > 0 {
			s := line(t, &rows, tx)
			if p := tx.Changes[0].Partition; tx.Outside && p == outside {
				lines[len(lines)-1] += "," + strings.TrimPrefix(s, "outside:")
			} else {
				lines = append(lines, s)
			}
			if outside = (stream.Partition{}); tx.Outside {
				outside = tx.Changes[0].Partition
			}
		}
		n -= len(tx.Changes)
		tx.Release()
		if n <= 0 {
			break
		}
	}
	return lines, after
}

func wantLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestTransactions(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 3, nil), w.table("items", 2, nil)
		cfg := w.transactions(orders, items)
		var want []string
		var sizes []int
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range 24 {
			var changes []change
			var words []string
			for range 1 + rnd.IntN(6) {
				c := change{t: orders, op: 'u', id: rnd.Int64N(40), name: fmt.Sprint("n", i)}
				if rnd.IntN(2) == 0 {
					c.t = items
				}
				changes = append(changes, c)
				words = append(words, fmt.Sprintf("u %s %d %s", c.t.name, c.id, c.name))
			}
			w.tx(changes...)
			sizes = append(sizes, len(changes))
			want = append(want, fmt.Sprintf("%d: %s", w.order, strings.Join(words, ", ")))
		}
		sum := func(sizes []int) (n int) {
			for _, s := range sizes {
				n += s
			}
			return n
		}
		got, _ := collect(t, cfg, sum(sizes))
		wantLines(t, got, want...)

		// And from any transaction on.
		half := 9
		_, after := collect(t, cfg, sum(sizes[:half]))
		for i := range cfg.Partitions {
			cfg.Partitions[i].From = after[cfg.Partitions[i].Partition]
		}
		cfg.End.From = after[w.end()]
		got, _ = collect(t, cfg, sum(sizes[half:]))
		wantLines(t, got, want[half:]...)
	})
}

func TestTransactionsWaitForTheirEnd(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 1, nil), w.table("items", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "a"})
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		got := make(chan string)
		go func() {
			defer close(got)
			var rows subscribe.Rows
			for tx, err := range subscribe.Transactions(ctx, w.transactions(orders, items)) {
				if err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					return
				}
				got <- line(t, &rows, tx)
			}
		}()
		first := fmt.Sprintf("%d: c orders 1 a", w.order)
		if s := <-got; s != first {
			t.Fatalf("got %q, want %q", s, first)
		}
		w.begin()
		w.write(change{t: orders, op: 'c', id: 2, name: "b"})
		if w.transactional {
			w.commit() // a source transaction spread over several
		} else {
			w.flush()
		}
		w.write(change{t: items, op: 'c', id: 2, name: "b"})
		w.flush()
		if w.transactional {
			w.commit()
		}
		select {
		case s := <-got:
			t.Errorf("half a transaction was given: %q", s)
		case <-time.After(500 * time.Millisecond):
		}
		w.writeEnd(0)
		w.commit()
		second := fmt.Sprintf("%d: c orders 2 b, c items 2 b", w.order)
		if s := <-got; s != second {
			t.Errorf("got %q, want %q", s, second)
		}
		cancel()
		for range got {
			t.Error("something was given at the end")
		}
	})
}

func TestTransactionsWithoutEnds(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		for i := range int64(3) { // their END records are not there
			w.begin()
			w.write(change{t: orders, op: 'c', id: i, name: "a"})
			w.commit()
		}
		got, after := collect(t, w.transactions(orders), 3)
		wantLines(t, got, "outside: c orders 0 a, c orders 1 a, c orders 2 a")

		w.tx(change{t: orders, op: 'c', id: 3, name: "b"})
		cfg := w.transactions(orders)
		cfg.Partitions[0].From = after[cfg.Partitions[0].Partition]
		got, _ = collect(t, cfg, 1)
		wantLines(t, got, fmt.Sprintf("%d: c orders 3 b", w.order))

		// With an END that is there: what lies before it comes by itself.
		got, _ = collect(t, w.transactions(orders), 4)
		wantLines(t, got, "outside: c orders 0 a, c orders 1 a, c orders 2 a", fmt.Sprintf("%d: c orders 3 b", w.order))
	})
}

func TestTransactionsAndSnapshot(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 1, nil), w.table("items", 1, nil)
		const flag = stream.FlagBackfill
		row := func(id int64) change { return change{t: orders, op: 'r', id: id, name: "s", flags: flag} }
		w.begin()
		w.write(change{t: orders, op: 't', flags: flag}, row(1), row(2))
		w.write(change{t: items, op: 'r', id: 9, name: "s", flags: flag})
		w.writeEnd(flag)
		w.commit()
		w.tx(change{t: orders, op: 'u', id: 1, name: "u"}, change{t: items, op: 'u', id: 9, name: "u"})
		tx := w.order
		w.begin() // rows read between transactions, without an END
		w.write(row(3))
		w.commit()
		w.tx(change{t: orders, op: 'u', id: 3, name: "v"})
		got, _ := collect(t, w.transactions(orders, items), 8)
		slices.Sort(got[:2])
		wantLines(t, got, "outside: r items 9 s", "outside: t orders, r orders 1 s, r orders 2 s", fmt.Sprintf("%d: u orders 1 u, u items 9 u", tx),
			"outside: r orders 3 s", fmt.Sprintf("%d: u orders 3 v", w.order))
	})
}

func TestTransactionsInPieces(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 2, nil)
		const rows = 3000
		w.begin()
		for i := range int64(rows) {
			w.write(change{t: orders, op: 'c', id: i, name: strings.Repeat("x", 200)})
			if i%500 == 499 {
				w.flush()
			}
		}
		w.writeEnd(0)
		w.commit()
		cfg := w.transactions(orders)
		cfg.PieceBytes = 100_000
		pieces, n, bytes := 0, 0, 0
		for tx, err := range subscribe.Transactions(testContext(t), cfg) {
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, c := range tx.Changes {
				size += len(c.Key) + len(c.Value)
			}
			if size > cfg.PieceBytes+1000 {
				t.Errorf("a piece has %d bytes", size)
			}
			if _, moved := tx.Positions[w.end()]; moved != tx.Last {
				t.Errorf("piece %d: Last is %v, the END's position is given: %v", pieces, tx.Last, moved)
			}
			pieces, n, bytes = pieces+1, n+len(tx.Changes), bytes+size
			tx.Release()
			if tx.Last {
				break
			}
		}
		if n != rows || pieces < bytes/cfg.PieceBytes {
			t.Errorf("%d changes in %d pieces of %d bytes", n, pieces, bytes)
		}
	})
}

func TestTransactionsNameUnknownPartitions(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 1, nil), w.table("items", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "a"}, change{t: items, op: 'c', id: 1, name: "a"})
		cfg := w.transactions(orders)
		got, _ := collect(t, cfg, 1)
		wantLines(t, got, fmt.Sprintf("%d: c orders 1 a", w.order))
		want := errors.New("look again")
		cfg.Unknown = func(p stream.EndPart) error {
			if p.Topic == items.Topic {
				return want
			}
			return nil
		}
		for _, err := range subscribe.Transactions(testContext(t), cfg) {
			if !errors.Is(err, want) {
				t.Errorf("error is %v", err)
			}
		}
	})
}

// TestTransactionsWhoseRowsAreGone: retention has removed the changes of a
// table, but not the END records that speak of them.
func TestTransactionsWhoseRowsAreGone(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 1, nil), w.table("items", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "a"}, change{t: items, op: 'c', id: 1, name: "a"})
		first := w.order
		w.tx(change{t: orders, op: 'c', id: 2, name: "b"})
		cfg := w.transactions(orders, items)
		end, err := w.client.Offsets(testContext(t), items.Topic, 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Partitions[1].From = subscribe.Position{Offset: end.End} // as if the topic began there
		got, _ := collect(t, cfg, 2)
		wantLines(t, got, fmt.Sprintf("%d: c orders 1 a", first), fmt.Sprintf("%d: c orders 2 b", w.order))
	})
}

func TestTransactionsNewEpoch(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "a"})
		first := w.order
		w.epoch, w.order = 2, 10
		w.tx(change{t: orders, op: 'c', id: 2, name: "b"})
		got, _ := collect(t, w.transactions(orders), 2)
		wantLines(t, got, fmt.Sprintf("%d: c orders 1 a", first), fmt.Sprintf("%d: c orders 2 b", w.order))
	})
}

func TestTransactionsAborted(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		if w.transactional {
			before := w.n
			w.n = map[stream.Partition]uint64{}
			w.begin()
			w.write(change{t: orders, op: 'c', id: 1, name: "never"})
			w.writeEnd(0)
			w.abort()
			w.n = before
		}
		w.tx(change{t: orders, op: 'c', id: 2, name: "b"})
		got, _ := collect(t, w.transactions(orders), 1)
		wantLines(t, got, fmt.Sprintf("%d: c orders 2 b", w.order))
	})
}

// TestTransactionsFail: a partition that cannot be read ends the iteration,
// although another one is waited for.
func TestTransactionsFail(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 1, nil), w.table("items", 1, nil)
		w.begin()
		w.write(change{t: orders, op: 'c', id: 1, name: "a"})
		w.touch(stream.Partition{Topic: items.Topic}) // as if its records were still to come
		w.writeEnd(0)
		w.commit()
		w.n[w.partitions(orders)[0].Partition] += 5
		w.order -= 100
		w.begin()
		w.write(change{t: orders, op: 'c', id: 1, name: "a"})
		w.commit()
		cfg := w.transactions(orders, items)
		for tx, err := range subscribe.Transactions(testContext(t), cfg) {
			if err == nil {
				t.Errorf("got %+v", tx)
			}
			var failed *subscribe.OrderError
			if !errors.As(err, &failed) {
				t.Errorf("error is %v", err)
			}
		}
	})
}
