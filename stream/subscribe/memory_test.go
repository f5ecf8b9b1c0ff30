package subscribe_test

import (
	"strings"
	"testing"

	"github.com/tailrace/tailrace/stream/subscribe"
)

// TestFeedOfLargeAndManyRecords: batches stay small whatever the records are,
// and a record larger than a batch comes too.
func TestFeedOfLargeAndManyRecords(t *testing.T) {
	w := newWorld(t, startEmbedded(t), false)
	orders := w.table("orders", 1, nil)
	large := strings.Repeat("x", 2<<20)
	w.begin()
	for i := range int64(5000) {
		w.write(change{t: orders, op: 'c', id: i, name: "a"})
	}
	w.write(change{t: orders, op: 'c', id: 5000, name: large}, change{t: orders, op: 'c', id: 5001, name: "b"})
	w.writeEnd(0)
	w.commit()
	cfg := w.config()
	cfg.Memory = 1
	f, err := subscribe.NewFeed(testContext(t), cfg, w.partitions(orders))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows subscribe.Rows
	for n := int64(0); n < 5002; {
		b, err := f.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if b.Size() > 64<<10 && len(b.Changes) > 1 || len(b.Changes) > 256 {
			t.Errorf("a batch has %d changes, %d bytes", len(b.Changes), b.Size())
		}
		for i := range b.Changes {
			if err := rows.Decode(&b.Changes[i]); err != nil {
				t.Fatal(err)
			}
			id, name := rows.After().Column(0).Int(), rows.After().Column(1).Bytes()
			if id != n || id == 5000 && string(name) != large {
				t.Fatalf("change %d is of row %d, its name has %d bytes", n, id, len(name))
			}
			n++
		}
		b.Release()
	}
}
