package subscribe

import (
	"context"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// An Option says how a topic is subscribed to.
type Option func(*options)

type options struct {
	group string
	from  Start
}

// Group joins a consumer group: its members share the topic's partitions, and
// what was acknowledged is committed there. Without it the subscription reads
// all partitions and commits nothing.
func Group(name string) Option { return func(o *options) { o.group = name } }

// From says where to begin partitions for which the group has committed
// nothing; without it, at Beginning.
func From(s Start) Option { return func(o *options) { o.from = s } }

// A Start is a place to begin at.
type Start struct {
	kind   startKind
	offset int64
	time   time.Time
}

type startKind uint8

const (
	startBeginning startKind = iota
	startNow
	startOffset
	startTime
)

// Where to begin: with the first record that is there, or with the first that
// is written from now on.
var (
	Beginning = Start{}
	Now       = Start{kind: startNow}
)

// Offset begins each partition at the record with offset n.
func Offset(n int64) Start { return Start{kind: startOffset, offset: n} }

// Time begins with the first record that was written at t or later.
func Time(t time.Time) Start { return Start{kind: startTime, time: t} }

// position returns where a partition is begun.
func (s Start) position(ctx context.Context, c *stream.Client, p stream.Partition) (Position, error) {
	switch s.kind {
	case startNow:
		o, err := c.Offsets(ctx, p.Topic, p.Number)
		return Position{Offset: o.LastStable}, err
	case startOffset:
		return Position{Offset: s.offset}, nil
	case startTime:
		offset, err := c.OffsetAt(ctx, p.Topic, p.Number, s.time)
		return Position{Offset: offset}, err
	}
	return Position{}, nil
}

// feedPartitions returns from where partitions are read: at what was
// committed, else at the start. A committed offset is where the group stopped,
// so retention may not have passed it; a start may be anywhere.
func (o *options) feedPartitions(ctx context.Context, c *stream.Client, ps []stream.Partition, committed map[stream.Partition]int64) ([]FeedPartition, error) {
	all := make([]FeedPartition, 0, len(ps))
	for _, p := range ps {
		from := FeedPartition{Partition: p}
		if offset, ok := committed[p]; ok {
			from.From.Offset = offset
		} else {
			var err error
			if from.From, err = o.from.position(ctx, c, p); err != nil {
				return nil, fmt.Errorf("subscribe to topic %s: %w", p.Topic, err)
			}
		}
		all = append(all, from)
	}
	return all, nil
}
