package subscribe

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// An Event is a change of a row of type T. It is the caller's own.
type Event[T any] struct {
	Op     byte // Debezium's: c, u, d, r (read by a snapshot), t (the table was emptied)
	Before *T   // nil if the change does not say; of a delete often only the key
	After  *T   // nil after a delete
	// Key is the Avro bytes of the row's key: equal keys have equal bytes. Nil
	// for a table without one.
	Key       []byte
	Partition stream.Partition
	Position  Position  // after the change; its Place is the change's
	Committed time.Time // when the database committed it

	unchanged []string
	acks      *acks
	number    uint64
}

// Unchanged says that an UPDATE did not touch the column, and that the log does
// not hold its value: After's field has no meaning then.
func (e *Event[T]) Unchanged(column string) bool { return slices.Contains(e.unchanged, column) }

// Ack says that the change is done with. The group commits the highest offset
// of each partition before which everything is; what is not committed comes
// again. It may be called in any order, by any goroutine, and waits for
// nothing.
func (e *Event[T]) Ack() {
	if e.acks != nil {
		e.acks.done(e.Partition, e.number)
	}
}

// A Subscription gives the changes of a topic as rows of type T.
type Subscription[T any] struct {
	cfg     Config
	topic   string
	options options
	plan    *structPlan
}

// To subscribes to a topic whose rows are decoded into T, a struct. A field is
// filled from the column that its tag `tailrace:"name"` names, else from the
// one with its own name, letters' case and underscores aside; `tailrace:"-"`
// leaves it out. A column that may be null needs a pointer, a sql.Null, or a
// Field, which also tells null from unchanged. The topic must be there.
//
//	boolean, int, long, float, double   Go's; bool, any integer it fits into, float
//	string, uuid, json, xml, enum       string, []byte
//	bytes                               []byte
//	decimal                             string, float64, *big.Rat
//	date, timestamp, with zone or not   time.Time (UTC)
//	time, interval                      time.Duration
//	array                               slice
func To[T any](ctx context.Context, cfg Config, topic string, opts ...Option) (*Subscription[T], error) {
	plan, err := planOf[T]()
	if err != nil {
		return nil, fmt.Errorf("subscribe to topic %s: %w", topic, err)
	}
	if cfg.Client == nil || cfg.Registry == nil {
		return nil, fmt.Errorf("subscribe to topic %s: a client and a registry are needed", topic)
	}
	if _, err := cfg.Client.Topic(ctx, topic); err != nil {
		return nil, fmt.Errorf("subscribe to topic %s: %w", topic, err)
	}
	s := &Subscription[T]{cfg: cfg.defaults(), topic: topic, plan: plan}
	for _, o := range opts {
		o(&s.options)
	}
	return s, nil
}

// Changes gives the changes, in order within each partition, until ctx ends or
// the loop is left. An error is the last that is given; ctx's end is none. What
// was acknowledged is committed every second and at the end. When the group's
// members share anew, changes come again that were not acknowledged.
func (s *Subscription[T]) Changes(ctx context.Context) iter.Seq2[*Event[T], error] {
	return func(yield func(*Event[T], error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		sessions, result := make(chan *session), make(chan error, 1)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { result <- s.run(ctx, sessions) })
		for {
			select {
			case err := <-result:
				if err != nil && ctx.Err() == nil {
					yield(nil, err)
				}
				return
			case session := <-sessions:
				err := s.consume(session, yield)
				close(session.released)
				switch {
				case err == nil:
				case errors.Is(err, errStopped):
					return
				default:
					yield(nil, err)
					return
				}
			}
		}
	}
}

// A session is a generation of the group on its way to the loop; without a
// group there is one.
type session struct {
	ctx      context.Context // the generation's
	feed     *Feed
	acks     *acks
	released chan struct{} // closed when the loop is done with it
}

// run gives sessions until ctx ends.
func (s *Subscription[T]) run(ctx context.Context, sessions chan<- *session) error {
	if s.options.group != "" {
		cfg := stream.GroupConfig{Group: s.options.group, Topics: []string{s.topic}, Log: s.cfg.Log}
		return s.cfg.Client.RunGroup(ctx, cfg, func(ctx context.Context, g *stream.Generation) error { return s.serve(ctx, g, sessions) })
	}
	info, err := s.cfg.Client.Topic(ctx, s.topic)
	if err != nil {
		return err
	}
	var all []stream.Partition
	for i := range info.Partitions {
		all = append(all, stream.Partition{Topic: s.topic, Number: i})
	}
	from, err := s.options.feedPartitions(ctx, s.cfg.Client, all, nil)
	if err != nil {
		return err
	}
	return s.offer(ctx, from, nil, sessions)
}

// serve is one generation.
func (s *Subscription[T]) serve(ctx context.Context, g *stream.Generation, sessions chan<- *session) error {
	committed, err := g.Committed(ctx)
	if err != nil {
		return err
	}
	from, err := s.options.feedPartitions(ctx, s.cfg.Client, g.Partitions(), committed)
	if err != nil {
		return err
	}
	return s.offer(ctx, from, g, sessions)
}

const (
	commitEvery = time.Second
	// letGo is for how long a loop may still hold a change when its generation
	// has ended; what it acknowledges later comes again.
	letGo = 10 * time.Second
	// commitLimit bounds the commit at the end of a generation.
	commitLimit = 5 * time.Second
)

// offer reads partitions and hands them to the loop until ctx ends.
func (s *Subscription[T]) offer(ctx context.Context, from []FeedPartition, g *stream.Generation, sessions chan<- *session) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed, err := NewFeed(ctx, s.cfg, from)
	if err != nil {
		return err
	}
	defer feed.Close()
	session := &session{ctx: ctx, feed: feed, released: make(chan struct{})}
	if g != nil {
		session.acks = newAcks()
	}
	select {
	case sessions <- session:
	case <-ctx.Done():
		return nil
	}
	ticks := time.NewTicker(commitEvery)
	defer ticks.Stop()
	for ctx.Err() == nil {
		select {
		case <-ticks.C:
			// That the generation is over is for the heartbeat to find out.
			if err := commit(ctx, g, session.acks); err != nil && ctx.Err() == nil && !errors.Is(err, stream.ErrGeneration) {
				return err
			}
		case <-ctx.Done():
		}
	}
	timer := time.NewTimer(letGo)
	defer timer.Stop()
	select {
	case <-session.released:
	case <-timer.C:
	}
	last, done := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer done()
	return commit(last, g, session.acks)
}

func commit(ctx context.Context, g *stream.Generation, a *acks) error {
	if g == nil {
		return nil
	}
	offsets := a.committable()
	if err := g.Commit(ctx, offsets); err != nil {
		return err
	}
	a.committed(offsets)
	return nil
}

// consume gives the changes of a session. It returns nil when the generation
// ends, errStopped when the loop was left.
func (s *Subscription[T]) consume(session *session, yield func(*Event[T], error) bool) error {
	var rows Rows
	for {
		b, err := session.feed.Next(session.ctx)
		if err != nil {
			if session.ctx.Err() != nil {
				return nil
			}
			return err
		}
		for i := range b.Changes {
			if session.ctx.Err() != nil {
				return nil
			}
			if err := s.give(session, &rows, &b.Changes[i], yield); err != nil {
				return err
			}
		}
		b.Release()
	}
}

// give gives one change. Tombstones are for compaction only.
func (s *Subscription[T]) give(session *session, rows *Rows, c *Change, yield func(*Event[T], error) bool) error {
	skip := c.Table == nil
	e := &Event[T]{Op: c.Op, Partition: c.Partition, Position: c.Position(), acks: session.acks}
	if !skip {
		if err := s.fill(e, rows, c); err != nil {
			return err
		}
	}
	if session.acks != nil {
		e.number = session.acks.give(c.Partition, c.Offset, skip)
	}
	if !skip && !yield(e, nil) {
		return errStopped
	}
	return nil
}

func (s *Subscription[T]) fill(e *Event[T], rows *Rows, c *Change) error {
	if err := rows.Decode(c); err != nil {
		return err
	}
	if c.Key != nil {
		_, body, err := frameID(c.Key)
		if err != nil {
			return err
		}
		e.Key = slices.Clone(body)
	}
	e.Committed = time.UnixMicro(rows.CommittedMicros()).UTC()
	var err error
	if e.Before, _, err = scanRow[T](s.plan, rows.Before()); err == nil {
		e.After, e.unchanged, err = scanRow[T](s.plan, rows.After())
	}
	if err != nil {
		return fmt.Errorf("decode change at offset %d of %s/%d: %w", c.Offset, c.Partition.Topic, c.Partition.Number, err)
	}
	return nil
}
