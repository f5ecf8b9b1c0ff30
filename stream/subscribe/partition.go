package subscribe

import (
	"context"
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/stream"
)

// A partition is read by one goroutine, in run. What the feed's mutex guards
// is shared with Next.
type partition struct {
	feed *Feed
	id   stream.Partition
	from FeedPartition

	options stream.FetchOptions
	seq     sequence
	heads   headers
	known   identifier
	batch   *Batch // being filled

	room chan struct{} // the queue has room again

	// Guarded by the feed's mutex:
	queued  *Batch // read, not yet asked for
	scanned int64  // nothing but what is queued was left out before this offset
	err     error  // why reading ended
}

// Bounds of one fetch, in bytes as they are stored.
const (
	fetchLeast = 64 << 10
	fetchMost  = 1 << 20
)

func newPartition(f *Feed, from FeedPartition, share int64) *partition {
	size := min(max(share, fetchLeast), fetchMost)
	return &partition{
		feed: f, id: from.Partition, from: from,
		options: stream.FetchOptions{MaxBytes: int32(size), MaxWait: f.cfg.MaxWait},
		seq:     sequence{last: from.From},
		known:   identifier{tables: f.tables, log: f.cfg.Log},
		room:    make(chan struct{}, 1),
	}
}

// run reads until ctx ends or reading fails.
func (p *partition) run(ctx context.Context) {
	err := p.read(ctx)
	p.feed.mutex.Lock()
	p.err = err
	p.feed.mutex.Unlock()
	signal(p.feed.wake)
}

func (p *partition) read(ctx context.Context) error {
	reader, err := p.begin(ctx)
	if err != nil {
		return err
	}
	for {
		err := reader.Read(ctx, func(r *stream.Record) error { return p.add(ctx, r) })
		if p.batch != nil && len(p.batch.Changes) > 0 {
			if err := p.push(ctx); err != nil {
				return err
			}
		}
		var gone *stream.OffsetError
		switch {
		case errors.As(err, &gone):
			if reader, err = p.goOn(ctx, gone); err != nil {
				return err
			}
		case err != nil:
			return err
		}
		p.feed.mutex.Lock()
		p.scanned = reader.Offset()
		p.feed.mutex.Unlock()
		signal(p.feed.wake)
	}
}

// begin finds where to begin: reading without a position, or from one that
// retention may have passed, begins at the first record that is there.
func (p *partition) begin(ctx context.Context) (*stream.Reader, error) {
	offset := p.from.From.Offset
	if p.from.From == (Position{}) || p.from.Skip {
		o, err := p.feed.cfg.Client.Offsets(ctx, p.id.Topic, p.id.Number)
		if err != nil {
			return nil, err
		}
		if offset < o.Start {
			offset, p.seq.last = o.Start, Position{Offset: o.Start}
		}
	}
	return p.reader(offset), nil
}

func (p *partition) reader(offset int64) *stream.Reader {
	return p.feed.cfg.Client.NewReader(p.id.Topic, p.id.Number, offset, p.options)
}

// goOn finds where reading goes on when its offset is not there any more. In a
// topic that is only compacted nothing is lost by that: what stood there was
// written over, or written again further on.
func (p *partition) goOn(ctx context.Context, gone *stream.OffsetError) (*stream.Reader, error) {
	if gone.Offset >= gone.Start {
		return nil, gone
	}
	if !p.from.Skip {
		policy, err := p.feed.cfg.Client.TopicConfig(ctx, p.id.Topic, "cleanup.policy")
		if err != nil {
			return nil, errors.Join(gone, err)
		}
		if policy != "compact" {
			return nil, gone
		}
		p.seq.compacted = true
	} else {
		p.seq.last = Position{Offset: gone.Start}
	}
	p.feed.cfg.Log.Info("reading goes on at the first record that is there", "topic", p.id.Topic, "partition", p.id.Number, "offset", gone.Start, "before", gone.Offset)
	return p.reader(gone.Start), nil
}

// add puts a record into the batch, which it hands over first if it is full.
func (p *partition) add(ctx context.Context, r *stream.Record) error {
	h := &p.heads
	if err := h.read(r); err != nil {
		return &RecordError{p.id, r.Offset, err}
	}
	if !h.found {
		return &OrderError{Partition: p.id, Offset: r.Offset, Before: p.seq.last, Foreign: true}
	}
	v, err := p.judge(ctx, r.Offset)
	if err != nil {
		return err
	}
	size := h.size(r)
	if p.batch != nil && p.batch.full(size) {
		if err := p.push(ctx); err != nil {
			return err
		}
	}
	if p.batch == nil {
		p.batch = p.feed.batch(size)
		p.batch.Partition = p.id
	}
	c := Change{
		Partition: p.id, Offset: r.Offset, Timestamp: r.Timestamp, Mark: h.mark, Repeated: v == repeated, before: p.seq.last,
		Key: p.batch.copy(r.Key), Value: p.batch.copy(r.Value), OldKey: p.batch.copy(h.oldKey), NewKey: p.batch.copy(h.newKey),
	}
	if err := p.known.identify(ctx, &c, p.heads.rest); err != nil {
		return &RecordError{p.id, r.Offset, err}
	}
	p.seq.take(r.Offset, &h.mark, v)
	p.batch.Changes = append(p.batch.Changes, c)
	return nil
}

// judge checks the record's number and place.
func (p *partition) judge(ctx context.Context, offset int64) (verdict, error) {
	h := &p.heads
	v := p.seq.judge(&h.mark)
	if v != gap && v != breaks {
		return v, nil
	}
	if !p.seq.compacted {
		policy, err := p.feed.cfg.Client.TopicConfig(ctx, p.id.Topic, "cleanup.policy")
		if err != nil {
			return v, errors.Join(&OrderError{Partition: p.id, Offset: offset, Before: p.seq.last, Mark: h.mark}, err)
		}
		p.seq.compacted = isCompacted(policy)
		v = p.seq.judge(&h.mark)
	}
	if v == breaks || v == gap && !p.seq.compacted {
		return v, &OrderError{Partition: p.id, Offset: offset, Before: p.seq.last, Mark: h.mark}
	}
	return v, nil
}

// push hands the batch over as soon as the one before it was taken.
func (p *partition) push(ctx context.Context) error {
	for {
		p.feed.mutex.Lock()
		free := p.queued == nil
		if free {
			p.queued, p.batch = p.batch, nil
		}
		p.feed.mutex.Unlock()
		if free {
			signal(p.feed.wake)
			return nil
		}
		select {
		case <-p.room:
		case <-ctx.Done():
			return fmt.Errorf("read topic %s partition %d: %w", p.id.Topic, p.id.Number, context.Cause(ctx))
		}
	}
}
