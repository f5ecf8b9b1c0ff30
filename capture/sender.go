package capture

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// sender writes groups to the broker, one after the other, in its own goroutine.
type sender struct {
	cfg     *Config
	prod    *stream.Producer
	topic   string // of the state
	queue   chan *group
	empty   chan *group
	busy    atomic.Bool
	last    Position // the last durable one
	confirm func(Position)

	batch *stream.Batch // of the state
}

func newSender(cfg *Config, prod *stream.Producer, from Position, confirm func(Position)) *sender {
	s := &sender{cfg: cfg, prod: prod, topic: cfg.StateTopic(), last: from, confirm: confirm,
		queue: make(chan *group, 1), empty: make(chan *group, groups), batch: new(stream.Batch)}
	for range groups {
		s.empty <- new(group)
	}
	return s
}

// free says that there is nothing to send. It may lag behind by a moment; then a group
// waits in the channel, where it is looked at next.
func (s *sender) free() bool { return len(s.queue) == 0 && !s.busy.Load() }

// run sends what comes through the queue until it is closed, ctx ends or sending fails. When
// the queue is closed, a Kafka transaction that was not ended is aborted.
func (s *sender) run(ctx context.Context) error {
	for {
		select {
		case g, ok := <-s.queue:
			if !ok {
				s.abort(ctx)
				return nil
			}
			s.busy.Store(true)
			if err := s.send(ctx, g); err != nil {
				return err
			}
			g.reset()
			s.empty <- g
			s.busy.Store(false)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// abort ends a Kafka transaction that holds the first part of a source transaction, so that
// nobody waits for its timeout. If that fails the timeout does it: nothing is lost.
func (s *sender) abort(ctx context.Context) {
	if err := s.prod.End(ctx, false); err != nil {
		s.cfg.Log.Warn("the broker's timeout will abort the open transaction", "error", err)
	}
}

// send writes one group: its records, then the state that makes them count, then the end
// of the Kafka transaction.
func (s *sender) send(ctx context.Context, g *group) error {
	if g.records != nil {
		return s.sendRecords(ctx, g.records)
	}
	if err := s.produce(ctx, g); err != nil {
		return err
	}
	if g.cut == nil {
		return nil
	}
	s.batch.Reset()
	now := time.Now().UnixMilli()
	appendRecords(s.batch, now, g.extra)
	appendCut(s.batch, now, g.cut)
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.durable(g)
	return nil
}

// produce seals and sends the group's batches and notes their offsets.
func (s *sender) produce(ctx context.Context, g *group) error {
	if len(g.out) == 0 {
		return nil
	}
	g.wire = g.wire[:0]
	for _, o := range g.out {
		if err := o.batch.Seal(s.cfg.Codec, s.prod.Transactional()); err != nil {
			return fmt.Errorf("seal a batch for %s: %w", o.part.id, err)
		}
		g.wire = append(g.wire, &o.wire)
	}
	if err := s.prod.Produce(ctx, g.wire); err != nil {
		return fmt.Errorf("write changes: %w", err)
	}
	for _, o := range g.out {
		o.part.offset = o.wire.Offset + int64(o.batch.Len()) - 1
	}
	failpoint("produced")
	return nil
}

// sendRecords writes state records in a commit of their own.
func (s *sender) sendRecords(ctx context.Context, records []stateRecord) error {
	s.batch.Reset()
	appendRecords(s.batch, time.Now().UnixMilli(), records)
	return s.commit(ctx)
}

// sendCut writes a cut alone.
func (s *sender) sendCut(ctx context.Context, c *cut) error {
	s.batch.Reset()
	appendCut(s.batch, time.Now().UnixMilli(), c)
	return s.commit(ctx)
}

func appendRecords(b *stream.Batch, now int64, records []stateRecord) {
	for _, r := range records {
		b.Append(now, []byte(r.key), r.value, nil)
	}
}

// commit writes the state batch and ends the Kafka transaction. Its outcome may stay
// unknown: then it is an error, and the next start finds out.
func (s *sender) commit(ctx context.Context) error {
	if err := s.batch.Seal(s.cfg.Codec, s.prod.Transactional()); err != nil {
		return fmt.Errorf("seal the state: %w", err)
	}
	if err := s.prod.Produce(ctx, []*stream.Outgoing{{Topic: s.topic, Batch: s.batch}}); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	failpoint("state-written")
	failSoon("in-end")
	if err := s.prod.End(ctx, true); err != nil {
		return fmt.Errorf("end transaction: %w", err)
	}
	failpoint("ended")
	return nil
}

// durable confirms to the database what is safe: the position before the one that has just
// become durable, so that a start may go one back; or exactly it, when both state records
// say the same.
func (s *sender) durable(g *group) {
	pos := g.cut.position.Position
	if g.exact {
		s.confirm(pos)
	} else {
		s.confirm(s.last)
	}
	s.last = pos
	s.cfg.Monitor.durable(g)
}

// appendCut appends the state records of a cut.
func appendCut(b *stream.Batch, now int64, c *cut) {
	for _, cp := range c.parts {
		b.Append(now, []byte(partitionKey(cp.part.id)), mustJSON(partitionState{
			G: c.position.G, N: cp.n, Place: cp.place, Before: cp.before, BeforePlace: cp.beforePlace, Offset: cp.part.offset,
			Read: cp.read, BeforeRead: cp.beforeRead, Past: cp.part.past,
		}), nil)
	}
	for _, cr := range c.ranges {
		b.Append(now, []byte(cr.of.key), mustJSON(rangeState{G: c.position.G, Progress: cr.now, Before: cr.before}), nil)
	}
	b.Append(now, []byte(positionKey(c.slot)), mustJSON(c.position), nil)
}
