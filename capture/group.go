package capture

import "github.com/tailrace/tailrace/stream"

// groups is how many groups a run has: one being filled, one whose turn it waits for while
// state records go first, one in the channel, one being sent.
const groups = 4

// keepBytes bounds the size that the batches which an empty group keeps have grown to.
const keepBytes = 2 * flushBytes

// group is what goes to the broker together: records, and, if cut is set, the state that
// makes them count and the end of the Kafka transaction. Without a cut more of the same
// Kafka transaction follows. It belongs to one goroutine at a time.
type group struct {
	out        []*outgoing
	bytes      int   // size of the batches
	commits    int   // source transactions that ended in it
	commitTime int64 // of the last of them, microseconds
	cut        *cut
	extra      []stateRecord // written with the cut
	exact      bool          // once durable, confirm exactly the cut's position
	records    []stateRecord // to be written alone, in a commit of their own

	spare []*outgoing
	wire  []*stream.Outgoing
}

// outgoing is one batch of one partition.
type outgoing struct {
	part  *partition
	batch *stream.Batch
	grown int // the largest size that the batch ever had
	wire  stream.Outgoing
}

// next adds an empty batch for part.
func (g *group) next(part *partition) *outgoing {
	var o *outgoing
	if n := len(g.spare); n > 0 {
		o, g.spare = g.spare[n-1], g.spare[:n-1]
	} else {
		o = &outgoing{batch: new(stream.Batch)}
	}
	o.part = part
	o.wire = stream.Outgoing{Topic: part.id.Topic, Partition: part.id.Number, Batch: o.batch}
	g.out = append(g.out, o)
	return o
}

// close parts the partitions from their batches here, before the group is handed over.
func (g *group) close() {
	for _, o := range g.out {
		o.part.out = nil
	}
}

// reopen goes on filling a group that was closed and not sent.
func (g *group) reopen() {
	for _, o := range g.out {
		o.part.out = o
	}
	g.cut, g.exact = nil, false
}

// reset empties the group for reuse. It keeps no more batches than keepBytes allows.
func (g *group) reset() {
	kept := 0
	for _, o := range g.spare {
		kept += o.grown
	}
	for i, o := range g.out {
		g.out[i] = nil
		o.part = nil
		o.grown = max(o.grown, o.batch.Size())
		if kept += o.grown; kept > keepBytes {
			continue
		}
		o.batch.Reset()
		g.spare = append(g.spare, o)
	}
	*g = group{out: g.out[:0], spare: g.spare, wire: g.wire[:0]}
}
