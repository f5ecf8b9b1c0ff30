package subscribe_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// text says what a change is: op, table, id, name, note.
func text(t testing.TB, rows *subscribe.Rows, c *subscribe.Change) string {
	t.Helper()
	switch c.Op {
	case subscribe.OpTombstone:
		return "tombstone"
	case subscribe.OpEnd:
		return "END"
	}
	if err := rows.Decode(c); err != nil {
		t.Fatal(err)
	}
	row := rows.After()
	if c.Op == 'd' {
		row = rows.Before()
	}
	if !row.Present() {
		return fmt.Sprintf("%c %s", c.Op, rows.SourceTable())
	}
	s := fmt.Sprintf("%c %s %d %s", c.Op, rows.SourceTable(), row.Column(0).Int(), row.Column(1).Bytes())
	if row.Len() < 4 {
		return s
	}
	if note := row.Column(3); note.State() != subscribe.Set {
		return s + " " + note.State().String()
	} else if len(note.Bytes()) > 0 {
		return s + " " + string(note.Bytes())
	}
	return s
}

// read reads n changes from a feed, by partition.
func read(t testing.TB, f *subscribe.Feed, n int) map[stream.Partition][]string {
	t.Helper()
	got := make(map[stream.Partition][]string)
	var rows subscribe.Rows
	for n > 0 {
		b, err := f.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Changes {
			got[b.Partition] = append(got[b.Partition], text(t, &rows, &b.Changes[i]))
		}
		n -= len(b.Changes)
		b.Release()
	}
	return got
}

func newFeed(t testing.TB, w *world, ps []subscribe.FeedPartition) *subscribe.Feed {
	t.Helper()
	f, err := subscribe.NewFeed(testContext(t), w.config(), ps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestFeed(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders, items := w.table("orders", 2, nil), w.table("items", 1, nil)
		want := make(map[stream.Partition][]string)
		n := 0
		for i := range int64(15) {
			c := []change{{t: orders, op: 'c', id: i, name: "a"}, {t: items, op: 'u', id: i, name: "b", note: toasted}, {t: orders, op: 'd', id: i, name: "c", note: "-"}}
			w.tx(c...)
			for j, s := range []string{"c orders %d a", "u items %d b unchanged", "d orders %d c null"} {
				want[c[j].partition()] = append(want[c[j].partition()], fmt.Sprintf(s, i))
			}
			want[c[2].partition()] = append(want[c[2].partition()], "tombstone")
			want[w.end()] = append(want[w.end()], "END")
			n += 5
		}
		f := newFeed(t, w, append(w.partitions(orders, items), subscribe.FeedPartition{Partition: w.end()}))
		got := read(t, f, n)
		for p, s := range want {
			if !slices.Equal(got[p], s) {
				t.Errorf("%v: got %q, want %q", p, got[p], s)
			}
		}
	})
}

func TestFeedGoesOnAtPositions(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		for i := range int64(10) {
			w.tx(change{t: orders, op: 'c', id: i, name: "x"})
		}
		f := newFeed(t, w, w.partitions(orders))
		var all []subscribe.Position
		for len(all) < 10 {
			b, err := f.Next(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Changes {
				all = append(all, b.Changes[i].Position())
			}
			if b.Position() != all[len(all)-1] {
				t.Errorf("position of the batch is %+v, of its last change %+v", b.Position(), all[len(all)-1])
			}
		}
		f.Close()
		for i, p := range all {
			if p.N != uint64(i+1) || p.Pos != 1010+uint64(10*i) {
				t.Fatalf("position %d is %+v", i, p)
			}
		}
		ps := w.partitions(orders)
		ps[0].From = all[6]
		got := read(t, newFeed(t, w, ps), 3)[ps[0].Partition]
		if want := []string{"c orders 7 x", "c orders 8 x", "c orders 9 x"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// nextError reads until the error.
func nextError(t *testing.T, f *subscribe.Feed) error {
	t.Helper()
	for {
		b, err := f.Next(testContext(t))
		if err != nil {
			if _, again := f.Next(testContext(t)); !errors.Is(again, err) {
				t.Errorf("the next error is %v, not %v", again, err)
			}
			return err
		}
		b.Release()
	}
}

func wantFatal(t *testing.T, err error, says, hint string) {
	t.Helper()
	var e interface {
		Fatal() bool
		Hint() string
	}
	if !errors.As(err, &e) || !e.Fatal() {
		t.Fatalf("error %v is not fatal", err)
	}
	if !strings.Contains(err.Error(), says) || !strings.Contains(e.Hint(), hint) {
		t.Errorf("error %q, hint %q; want %q and %q", err, e.Hint(), says, hint)
	}
}

func TestFeedFindsGaps(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		for name, spoil := range map[string]func(p stream.Partition){
			"number left out": func(p stream.Partition) { w.n[p]++ },
			"number again":    func(p stream.Partition) { w.n[p]-- },
			"earlier order":   func(stream.Partition) { w.order -= 50 },
		} {
			table := w.table(strings.ReplaceAll(name, " ", "_"), 1, nil)
			c := change{t: table, op: 'c', id: 1, name: "x"}
			w.tx(c)
			w.tx(c)
			spoil(c.partition())
			w.tx(c)
			w.order += 100
			says := map[string]string{"number left out": "is number 4 of the partition, want 3", "number again": "is number 2 of the partition, want 3",
				"earlier order": "lies before the one that precedes it"}[name]
			wantFatal(t, nextError(t, newFeed(t, w, w.partitions(table))), says, "from the beginning")
		}
	})
}

func TestFeedFindsRecreatedTopic(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		ps := w.partitions(orders)
		w.tx(change{t: orders, op: 'c', id: 1, name: "x"})
		ps[0].From = subscribe.Position{Offset: 5, Place: stream.Place{Epoch: 1, Pos: 1050, Row: 1}, N: 5}
		var gone *stream.OffsetError
		if err := nextError(t, newFeed(t, w, ps)); !errors.As(err, &gone) || !strings.Contains(gone.Hint(), "deleted and created again") {
			t.Errorf("shorter topic: %v", err)
		}
	})
}

func TestFeedRefusesForeignRecords(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "x"})
		var b stream.Batch
		if err := b.Append(1, []byte("k"), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
		w.open[w.partitions(orders)[0].Partition] = &b
		w.commit()
		wantFatal(t, nextError(t, newFeed(t, w, w.partitions(orders))), "was not written by a capture", "topic prefix")
	})
}

func TestFeedOfCompactedTopic(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, map[string]string{"cleanup.policy": "compact"})
		p := w.partitions(orders)[0].Partition
		c := change{t: orders, op: 'c', id: 1, name: "x"}
		w.tx(c)
		w.n[p] += 3 // compaction has removed three
		w.tx(c)
		w.n[p] -= 4 // and written an older one again
		w.tx(c)
		f := newFeed(t, w, w.partitions(orders))
		var marks []string
		for len(marks) < 3 {
			b, err := f.Next(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Changes {
				marks = append(marks, fmt.Sprint(b.Changes[i].Mark.N, b.Changes[i].Repeated, b.Changes[i].Position().N))
			}
		}
		if want := []string{"1 false 1", "5 false 5", "2 true 5"}; !slices.Equal(marks, want) {
			t.Errorf("got %q, want %q", marks, want)
		}
	})
}

func TestFeedSchemas(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		old := w.tableOf("orders", 1, nil, &schemas.Table{Namespace: "public", Name: "orders", Columns: columns[:3], Key: []int{0}})
		w.tx(change{t: old, op: 'c', id: 1, name: "x"})
		w.tx(change{t: w.table("orders", 1, nil), op: 'c', id: 2, name: "y", note: "new"})
		w.tx(change{t: old, op: 'c', id: 3, name: "z"})
		f := newFeed(t, w, w.partitions(old))
		b, err := f.Next(testContext(t))
		for err == nil && len(b.Changes) < 3 {
			var more *subscribe.Batch
			if more, err = f.Next(testContext(t)); err == nil {
				b.Changes = append(b.Changes, more.Changes...)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		var rows subscribe.Rows
		for i, want := range []string{"c orders 1 x", "c orders 2 y new", "c orders 3 z"} {
			if got := text(t, &rows, &b.Changes[i]); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if b.Changes[0].Table != b.Changes[2].Table || b.Changes[0].Table == b.Changes[1].Table {
			t.Error("tables are not told by their schema ids")
		}
		key, err := rows.Key(&b.Changes[1])
		if err != nil || key.Len() != 1 || key.Column(0).Int() != 2 {
			t.Errorf("key has %d columns, %v", key.Len(), err)
		}
	})
}

func TestFeedUnknownSchema(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		orders.valueID = 12345
		w.tx(change{t: orders, op: 'c', id: 1, name: "x"})
		wantFatal(t, nextError(t, newFeed(t, w, w.partitions(orders))), "schema 12345", "the registry is the one")
	})
}

func TestFeedRefusesTwice(t *testing.T) {
	w := newWorld(t, startEmbedded(t), false)
	orders := w.table("orders", 1, nil)
	if _, err := subscribe.NewFeed(testContext(t), w.config(), append(w.partitions(orders), w.partitions(orders)...)); err == nil {
		t.Error("a partition was taken twice")
	}
	if _, err := subscribe.NewFeed(testContext(t), subscribe.Config{}, nil); err == nil {
		t.Error("a feed was made of nothing")
	}
}
