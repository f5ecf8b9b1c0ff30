package subscribe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// Config is what reading needs.
type Config struct {
	Client   *stream.Client
	Registry *registry.Client
	// Memory bounds what is read ahead, over all partitions, in bytes; default
	// 64 MiB. However small it is, a partition takes half a MiB, and as much as
	// its largest record batch.
	Memory int64
	// MaxWait is for how long a broker holds a request back while a partition
	// has nothing new; default 5 s. It delays nothing.
	MaxWait time.Duration
	Log     *slog.Logger // nil: silent
}

func (c Config) defaults() Config {
	if c.Memory <= 0 {
		c.Memory = 64 << 20
	}
	if c.MaxWait <= 0 {
		c.MaxWait = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A FeedPartition says from where a partition is read.
type FeedPartition struct {
	stream.Partition
	From Position // the zero Position: from the first record that is there
	// Skip has reading begin at the first record that is there if that is after
	// From, instead of ending with an error; what was left out is not known.
	Skip bool
}

// A Feed reads partitions from positions on. Each partition is read ahead of
// Next by a goroutine and a connection of its own, two batches at most; all of
// them end with Close. It is not safe for concurrent use.
type Feed struct {
	cfg    Config
	tables *tables
	stop   context.CancelFunc
	done   sync.WaitGroup
	room   int // bytes of a batch
	parts  []*partition
	turn   int // the partition that is looked at first
	spare  sync.Pool

	mutex sync.Mutex    // guards the queues
	wake  chan struct{} // something was put into a queue
	err   error
}

// NewFeed begins to read. Reading ends with ctx or Close.
func NewFeed(ctx context.Context, cfg Config, partitions []FeedPartition) (*Feed, error) {
	if cfg.Client == nil || cfg.Registry == nil {
		return nil, errors.New("read topics: a client and a registry are needed")
	}
	return newFeed(ctx, cfg.defaults(), newTables(cfg.Registry), partitions)
}

func newFeed(ctx context.Context, cfg Config, t *tables, partitions []FeedPartition) (*Feed, error) {
	met := make(map[stream.Partition]bool)
	for _, p := range partitions {
		if met[p.Partition] {
			return nil, fmt.Errorf("read topics: partition %d of topic %s is given twice", p.Number, p.Topic)
		}
		met[p.Partition] = true
	}
	ctx, stop := context.WithCancel(ctx)
	share := cfg.Memory / int64(max(len(partitions), 1)) // a fetch, what it inflates to, and three batches
	f := &Feed{cfg: cfg, tables: t, stop: stop, wake: make(chan struct{}, 1), room: int(min(max(share/8, 64<<10), 512<<10))}
	f.spare.New = func() any { return new(Batch) }
	for _, from := range partitions {
		f.parts = append(f.parts, newPartition(f, from, share/4))
	}
	for _, p := range f.parts {
		f.done.Go(func() { p.run(ctx) })
	}
	return f, nil
}

// Close ends the reading and waits for its goroutines. Batches that were given
// out stay valid.
func (f *Feed) Close() {
	f.stop()
	f.done.Wait()
}

// Next returns the next changes of some partition, at least one. It waits for
// them until ctx ends. Partitions take turns. An error of the reading comes
// when what was read before is given out; it is final.
func (f *Feed) Next(ctx context.Context) (*Batch, error) {
	return f.next(ctx, nil)
}

// next is Next for the partitions that wanted says, nil for all.
func (f *Feed) next(ctx context.Context, wanted func(*partition) bool) (*Batch, error) {
	for {
		if b, err := f.take(wanted); b != nil || err != nil {
			return b, err
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return nil, fmt.Errorf("read topics: %w", context.Cause(ctx))
		}
	}
}

// take takes a batch from the queues, if there is one.
func (f *Feed) take(wanted func(*partition) bool) (*Batch, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for i := range f.parts {
		p := f.parts[(f.turn+i)%len(f.parts)]
		if wanted != nil && !wanted(p) {
			continue
		}
		if b := p.queued; b != nil {
			p.queued = nil
			f.turn = (f.turn + i + 1) % len(f.parts)
			signal(p.room)
			return b, nil
		}
		if p.err != nil {
			f.err = p.err
			return nil, f.err
		}
	}
	return nil, nil
}

// failed returns the error of a partition of which nothing is left to take.
func (f *Feed) failed() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, p := range f.parts {
		if p.err != nil && p.queued == nil {
			return p.err
		}
	}
	return nil
}

// drained says that nothing of a partition is left to take before an offset.
func (f *Feed) drained(p *partition, offset int64) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return p.queued == nil && p.scanned >= offset
}

// signal wakes who waits on c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (f *Feed) batch(size int) *Batch {
	b := f.spare.Get().(*Batch)
	b.reset(f.room, size)
	b.free = f.release
	return b
}

func (f *Feed) release(b *Batch) { f.spare.Put(b) }
