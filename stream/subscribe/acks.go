package subscribe

import (
	"sync"

	"github.com/tailrace/tailrace/stream"
)

// acks knows what of the partitions of a generation was acknowledged.
type acks struct {
	mutex sync.Mutex
	parts map[stream.Partition]*ackQueue
}

// ackQueue is what was given out of one partition and is not committable yet,
// in order.
type ackQueue struct {
	first   uint64 // the number of pending[0], counted from the generation's start
	pending []ack
	next    int64 // everything before this offset was acknowledged
	sent    int64 // of it, committed
}

type ack struct {
	offset int64
	done   bool
}

func newAcks() *acks { return &acks{parts: make(map[stream.Partition]*ackQueue)} }

// give notes that the record at offset is given out, and returns its number.
func (a *acks) give(p stream.Partition, offset int64, done bool) uint64 {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	q := a.parts[p]
	if q == nil {
		q = &ackQueue{}
		a.parts[p] = q
	}
	n := q.first + uint64(len(q.pending))
	q.pending = append(q.pending, ack{offset, done})
	if done {
		q.settle()
	}
	return n
}

// done notes that record number n was acknowledged. Twice is once.
func (a *acks) done(p stream.Partition, n uint64) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if q := a.parts[p]; q != nil && n >= q.first {
		q.pending[n-q.first].done = true
		q.settle()
	}
}

// settle lets go of what is acknowledged without a gap.
func (q *ackQueue) settle() {
	i := 0
	for i < len(q.pending) && q.pending[i].done {
		q.next = q.pending[i].offset + 1
		i++
	}
	q.first += uint64(i)
	if q.pending = q.pending[i:]; len(q.pending) == 0 {
		q.pending = nil
	}
}

// committable returns the offsets to commit that have not been.
func (a *acks) committable() map[stream.Partition]int64 {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	out := make(map[stream.Partition]int64)
	for p, q := range a.parts {
		if q.next > q.sent {
			out[p] = q.next
		}
	}
	return out
}

// committed notes what was committed.
func (a *acks) committed(offsets map[stream.Partition]int64) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for p, o := range offsets {
		a.parts[p].sent = max(a.parts[p].sent, o)
	}
}
