package sinks

import (
	"errors"
	"slices"
	"testing"

	"github.com/tailrace/tailrace/stream/subscribe"
)

// A transaction that ends with a TRUNCATE in some of a topic's partitions only was not written
// whole: nothing can bring it to an end, and a person has to decide.
func TestTruncateThatIsNotWhole(t *testing.T) {
	at := Partition{Topic: "shop.public.t"}
	c := newCollector(map[string]int{at.Topic: 2}, &budget{limit: 1 << 20, freed: make(chan struct{}, 1)})
	piece := func(last bool, changes ...*Change) error {
		return c.transaction(&subscribe.Transaction{Last: last, Changes: changes, Positions: map[Partition]Position{}})
	}
	if err := piece(false, &Change{Partition: at, Op: OpTruncate}); err != nil {
		t.Fatal(err)
	}
	err := piece(true)
	if ways := WaysOf(err); !errors.Is(err, errTruncate) || !IsFatal(err) || len(ways) != 1 || ways[0].Flag != WayBeginning {
		t.Errorf("%v leads on by %v", err, ways)
	}
}

// What waited at a TRUNCATE comes in its order, also a transaction in several pieces with a
// TRUNCATE of its own.
func TestPiecesThatWait(t *testing.T) {
	const topic = "shop.public.t"
	for _, single := range []bool{false, true} {
		c := newCollector(map[string]int{topic: 2}, &budget{limit: 1 << 20, freed: make(chan struct{}, 1)})
		c.single = single
		queue := make(chan *subscribe.Transaction, 10)
		offset := int64(0)
		send := func(outside, last bool, number int32, op byte) {
			ch := &Change{Partition: Partition{Topic: topic, Number: number}, Op: op, Offset: offset}
			offset++
			queue <- &subscribe.Transaction{Outside: outside, Last: last, Changes: []*Change{ch}, Positions: map[Partition]Position{}}
		}
		send(true, true, 0, OpTruncate)
		send(false, false, 0, OpTruncate)
		send(false, false, 0, OpCreate)
		send(false, true, 1, OpTruncate)
		send(false, true, 1, OpCreate)
		send(true, true, 1, OpTruncate)
		close(queue)
		var got []int64
		for {
			more, err := c.next(queue)
			if err != nil {
				t.Fatal(err)
			}
			for _, ch := range c.batch.Changes {
				got = append(got, ch.Offset)
			}
			if !more {
				break
			}
		}
		// The two TRUNCATEs outside, in any order; those of the transaction; what follows.
		slices.Sort(got[:min(2, len(got))])
		if len(got) == 6 {
			slices.Sort(got[2:4])
		}
		if want := []int64{0, 5, 1, 3, 2, 4}; !slices.Equal(got, want) {
			t.Errorf("single %t: got %v, want %v", single, got, want)
		}
	}
}

// Changes are cut in two as near to their middle as can be, and not between two TRUNCATEs.
func TestMiddle(t *testing.T) {
	for ops, want := range map[string]int{"cc": 1, "ccc": 1, "tt": 0, "ttc": 2, "ctt": 1, "cttc": 3, "tttcc": 3, "cctttt": 2, "tctc": 2} {
		var changes []*Change
		for _, op := range []byte(ops) {
			changes = append(changes, &Change{Op: op})
		}
		if got := middle(changes); got != want {
			t.Errorf("%s is cut at %d, want %d", ops, got, want)
		}
	}
}
