package sinks

import (
	"context"
	"sync"

	"github.com/tailrace/tailrace/stream/subscribe"
)

// budget bounds the bytes of what waits in a queue. One goroutine takes, another gives.
type budget struct {
	limit int
	freed chan struct{} // has room for one: something was given back

	mu   sync.Mutex
	used int
}

// take waits until n bytes fit; whatever its size, one may wait alone. It returns false if
// ctx ends first.
func (b *budget) take(ctx context.Context, n int) bool {
	for {
		b.mu.Lock()
		fits := b.used == 0 || b.used+n <= b.limit
		if fits {
			b.used += n
		}
		b.mu.Unlock()
		if fits {
			return true
		}
		select {
		case <-b.freed:
		case <-ctx.Done():
			return false
		}
	}
}

// give gives n bytes back.
func (b *budget) give(n int) {
	b.mu.Lock()
	b.used -= n
	b.mu.Unlock()
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// sizeOf returns the bytes of a transaction's keys and values.
func sizeOf(tx *subscribe.Transaction) int {
	n := 0
	for _, c := range tx.Changes {
		n += len(c.Key) + len(c.Value)
	}
	return n
}
