package sinks

import (
	"errors"
	"maps"

	"github.com/tailrace/tailrace/stream/subscribe"
)

// From how many changes, or bytes of them, on a batch is full.
const (
	groupChanges = 50_000
	groupBytes   = 16 << 20
)

// collector makes batches of what subscribe.Transactions gives.
//
// In a source transaction that comes in one piece a TRUNCATE stands between the changes
// before and after it. Elsewhere, outside of transactions and in large ones, the partitions
// come one after the other, so that it is a barrier: a partition that reaches it is parked
// until all partitions of the topic have, and transactions that come meanwhile wait too.
type collector struct {
	batch      Batch
	whole      int            // source transactions that end in the batch
	bytes      int            // of the batch
	partitions map[string]int // how many a topic has
	room       *budget        // of the queue
	single     bool           // each batch takes one thing from the queue

	last   *subscribe.Transaction   // that the batch took
	taken  []*subscribe.Transaction // their changes are in the batch
	kept   []*subscribe.Transaction // some of their changes are parked
	parked map[Partition][]*Change  // the first of each is a TRUNCATE
	wait   []*subscribe.Transaction // transactions behind parked changes
}

func newCollector(partitions map[string]int, room *budget) *collector {
	return &collector{partitions: partitions, room: room, parked: make(map[Partition][]*Change)}
}

// next fills the batch with at least one transaction, or piece of one, and with what else
// is there already. It returns false when the queue is closed.
func (c *collector) next(queue <-chan *subscribe.Transaction) (bool, error) {
	positions := make(map[Partition]Position)
	if c.batch.More {
		positions = c.batch.Positions // of the pieces so far
	}
	c.whole, c.bytes = 0, 0
	c.batch = Batch{Changes: c.batch.Changes[:0], Positions: positions, More: c.batch.More}
	if c.waited() { // single only
		return true, c.transaction(c.unwait())
	}
	tx, ok := <-queue
	if !ok {
		return false, nil
	}
	for ok {
		size := sizeOf(tx)
		c.room.give(size)
		c.bytes += size
		if err := c.add(tx); err != nil {
			return false, err
		}
		if c.single || len(c.batch.Changes) >= groupChanges || c.bytes >= groupBytes {
			return true, nil
		}
		select {
		case tx, ok = <-queue:
		default:
			return true, nil
		}
	}
	return true, nil
}

var errTruncate = errors.New("a transaction has a TRUNCATE in some of the topic's partitions only")

func (c *collector) add(tx *subscribe.Transaction) error {
	switch {
	case tx.Outside:
		c.outside(tx)
		return c.resume()
	case len(c.parked) > 0 && !c.batch.More:
		c.wait = append(c.wait, tx)
		return nil
	}
	return c.transaction(tx)
}

// resume takes the transactions that waited, once nothing is parked.
func (c *collector) resume() error {
	for !c.single && c.waited() {
		if err := c.transaction(c.unwait()); err != nil {
			return err
		}
	}
	return nil
}

// waited says whether a transaction, or the next piece of one, has waited long enough.
func (c *collector) waited() bool {
	return len(c.wait) > 0 && (len(c.parked) == 0 || c.batch.More)
}

func (c *collector) unwait() *subscribe.Transaction {
	tx := c.wait[0]
	c.wait = c.wait[1:]
	return tx
}

func (c *collector) transaction(tx *subscribe.Transaction) error {
	c.last = tx
	if tx.Last && !c.batch.More {
		c.taken = append(c.taken, tx)
		c.batch.Changes = append(c.batch.Changes, tx.Changes...)
	} else {
		c.kept = append(c.kept, tx)
		for _, ch := range tx.Changes {
			c.route(ch)
		}
	}
	maps.Copy(c.batch.Positions, tx.Positions)
	if c.batch.More = !tx.Last; !tx.Last {
		return nil
	}
	c.whole++
	if len(c.parked) > 0 {
		return anew("the capture was stopped in the middle of a TRUNCATE", "%w", errTruncate)
	}
	return nil
}

// outside takes the changes of one partition; its position follows what is not parked.
func (c *collector) outside(tx *subscribe.Transaction) {
	c.last = tx
	c.kept = append(c.kept, tx)
	for _, ch := range tx.Changes {
		from := len(c.batch.Changes)
		c.route(ch)
		for _, out := range c.batch.Changes[from:] {
			c.batch.Positions[out.Partition] = out.Position()
		}
	}
}

// route puts a change into the batch, or has it wait at a TRUNCATE.
func (c *collector) route(ch *Change) {
	p := ch.Partition
	switch {
	case c.parked[p] != nil:
		c.parked[p] = append(c.parked[p], ch)
	case ch.Op == OpTruncate && c.partitions[p.Topic] > 1:
		c.parked[p] = []*Change{ch}
		c.lift(p.Topic)
	default:
		c.batch.Changes = append(c.batch.Changes, ch)
	}
}

// lift lets a topic's TRUNCATE pass if all of its partitions have reached it.
func (c *collector) lift(topic string) {
	var at []Partition
	for p := range c.parked {
		if p.Topic == topic {
			at = append(at, p)
		}
	}
	if len(at) < c.partitions[topic] {
		return
	}
	var rest []*Change
	for _, p := range at {
		c.batch.Changes = append(c.batch.Changes, c.parked[p][0])
		rest = append(rest, c.parked[p][1:]...)
		delete(c.parked, p)
	}
	for _, ch := range rest {
		c.route(ch)
	}
}

// release gives the memory back of what was applied.
func (c *collector) release() {
	if len(c.parked) == 0 {
		c.taken, c.kept = append(c.taken, c.kept...), c.kept[:0]
	}
	for i, tx := range c.taken {
		tx.Release()
		c.taken[i] = nil
	}
	c.taken = c.taken[:0]
	clear(c.batch.Changes)
}
