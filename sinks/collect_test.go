package sinks

import (
	"errors"
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
