package sinks

import (
	"context"
	"sync"

	"github.com/tailrace/tailrace/stream"
)

// asked is a request at its offset.
type asked struct {
	*Request
	at int64
}

// inbox holds requests from when they are read until they are done. One goroutine puts,
// another takes.
type inbox struct {
	mu    sync.Mutex
	came  []asked
	until context.Context // of who waits; ends when something comes
	wake  context.CancelFunc
}

func (b *inbox) put(a asked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came = append(b.came, a)
	if b.wake != nil {
		b.wake()
	}
}

// take returns what came, and a context that ends when more does. The caller's context is
// always the same.
func (b *inbox) take(ctx context.Context) (came []asked, until context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	came, b.came = b.came, nil
	if b.until == nil || b.until.Err() != nil {
		b.until, b.wake = context.WithCancel(ctx)
	}
	return came, b.until
}

// close lets go of the context.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wake != nil {
		b.wake()
	}
}

// follow reads requests until ctx ends or reading fails; then it ends the run with stop.
func (d *letters) follow(ctx context.Context, stop context.CancelCauseFunc) {
	r := d.cfg.Source.Client.NewReader(d.out.topic, 0, d.next, stream.FetchOptions{MaxWait: d.cfg.Source.MaxWait})
	for {
		err := r.Read(ctx, func(r *stream.Record) error {
			rec, err := ParseDeadRecord(r)
			if err == nil && rec.Request != nil {
				d.inbox.put(asked{rec.Request, r.Offset})
			}
			return err
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			stop(err)
			return
		}
	}
}
