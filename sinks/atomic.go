package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// Bounds of what waits while the target is busy.
const (
	queueTransactions = 4096
	queueBytes        = 32 << 20
)

// reportEvery is how often offsets are reported to the group.
const reportEvery = 5 * time.Second

// errDiscover says that a transaction touched a partition that was not known when reading
// began: a new table.
var errDiscover = errors.New("there is a new partition")

// whole applies whole source transactions while this member owns all partitions. When the
// target refuses a row in a batch, the batch is read again, one transaction at a time: what
// stands before the refused one is applied, and the error names it.
func whole(ctx context.Context, cfg *Config, g *stream.Generation) error {
	careful := 0
	for {
		err := wholeWith(ctx, cfg, g, careful)
		var batch *refusedBatch
		if !errors.As(err, &batch) {
			return err
		}
		cfg.Log.Info("reads again, one transaction at a time, to find what the target refuses", "sink", cfg.Name, "error", err)
		// It is among these, but what is outside of transactions may come in another order.
		careful = 2 * max(careful, batch.changes)
	}
}

// refusedBatch is a refusal of something in a batch of several.
type refusedBatch struct {
	error
	changes int
}

// Unwrap gives the cause.
func (e *refusedBatch) Unwrap() error { return e.error }

// wholeWith is whole with one sink, until a batch is refused. As long as careful changes are
// not applied, each batch is one transaction.
func wholeWith(ctx context.Context, cfg *Config, g *stream.Generation, careful int) error {
	sink, err := cfg.Sink()
	if err != nil {
		return err
	}
	defer func() {
		if err := sink.Close(); err != nil {
			cfg.Log.Debug("did not close the target in order", "sink", cfg.Name, "error", err)
		}
	}()
	r := &run{cfg: cfg, sink: sink, gen: g, careful: careful}
	for {
		err := r.transactions(ctx)
		if !errors.Is(err, errDiscover) {
			return err
		}
		cfg.Log.Info("reads a new topic too", "sink", cfg.Name, "why", err)
	}
}

// transactions reads and applies until something fails or a new partition has to be read.
func (r *run) transactions(ctx context.Context) error {
	topics, err := discover(ctx, r.cfg)
	if err != nil {
		return err
	}
	ps, err := partitionsOf(ctx, r.cfg, topics)
	if err != nil {
		return err
	}
	end := Partition{Topic: r.cfg.EndTopic()}
	heads, err := r.heads(ctx, ps)
	if err != nil {
		return err
	}
	from, err := r.take(ctx, slices.Concat([]Partition{end}, ps, heads))
	if err != nil {
		return err
	}
	if err := r.noneParked(from[1+len(ps):]); err != nil {
		return err
	}
	from = from[:1+len(ps)]
	r.cfg.Monitor.SetPhase(PhaseRunning)
	r.cfg.Log.Info("sink runs", "sink", r.cfg.Name, "topics", len(topics), "partitions", len(ps), "ends_from", from[0].From.Offset)
	from[0].Skip = true
	tc := subscribe.TransactionsConfig{Config: r.cfg.Source, End: from[0], Partitions: from[1:], Unknown: r.unknown}
	return r.collect(ctx, tc)
}

// heads returns under what names the target has what is parked of the partitions: a sink
// may have run in mode Keys before.
func (r *run) heads(ctx context.Context, ps []Partition) (heads []Partition, err error) {
	_, err = r.cfg.Source.Client.Topic(ctx, DeadLettersTopic(r.cfg.Name))
	if errors.Is(err, stream.ErrNoTopic) {
		return nil, nil
	}
	for _, p := range ps {
		heads = append(heads, headPartition(r.cfg.Name, p))
	}
	return heads, err
}

// noneParked stops if changes are parked, which whole transactions would overtake.
func (r *run) noneParked(heads []subscribe.FeedPartition) error {
	var parked uint64
	for _, h := range heads {
		parked += h.From.N
	}
	if parked == 0 {
		return nil
	}
	return misconfigured(fmt.Sprintf("run it in mode keys until `tailrace dlq retry --sink %s` or `dlq drop` has emptied them", r.cfg.Name),
		"sink %s has %d dead letters, which mode transactions cannot keep in order", r.cfg.Name, parked)
}

// unknown is asked about a partition that a transaction touched and nobody reads.
func (r *run) unknown(part stream.EndPart) error {
	if len(r.cfg.choose([]stream.TopicInfo{{Name: part.Topic}})) == 0 {
		return nil // not one of the sink's
	}
	return fmt.Errorf("%w: %s/%d", errDiscover, part.Topic, part.Partition)
}

// collect reads in one goroutine and applies in this one: what comes while the target is
// busy goes into the next batch together. The first to fail ends the other.
func (r *run) collect(ctx context.Context, tc subscribe.TransactionsConfig) error {
	readCtx, stop := context.WithCancel(ctx)
	queue, failed := make(chan *subscribe.Transaction, queueTransactions), make(chan error, 1)
	room := &budget{limit: queueBytes, freed: make(chan struct{}, 1)}
	go func() {
		defer close(queue)
		for tx, err := range subscribe.Transactions(readCtx, tc) {
			if err != nil {
				failed <- err
				return
			}
			if !room.take(readCtx, sizeOf(tx)) {
				failed <- context.Cause(readCtx)
				return
			}
			select {
			case queue <- tx:
			case <-readCtx.Done():
				failed <- context.Cause(readCtx)
				return
			}
		}
		failed <- context.Cause(readCtx)
	}()
	partitions := make(map[string]int)
	for _, p := range tc.Partitions {
		partitions[p.Topic]++
	}
	err := r.drain(ctx, queue, newCollector(partitions, room))
	stop()
	readErr := <-failed
	if err == nil {
		err = readErr
	}
	return err
}

// applyBatch applies a batch. If the target refuses a row in it, the error names what is to be
// left out, or says that it is in a batch of several.
func (r *run) applyBatch(ctx context.Context, c *collector) error {
	outside := c.single && c.last.Outside
	c.batch.Divisible = outside && !c.batch.More
	err := r.apply(ctx, &c.batch, c.whole)
	switch {
	case !refuses(err):
		return err
	case !c.single:
		return &refusedBatch{err, r.open + len(c.batch.Changes)}
	case outside:
		return r.halves(ctx, c.batch.Changes, err)
	}
	return &refusedTransaction{err, c.last.ID, Partition{Topic: r.cfg.EndTopic()}, c.last.EndOffset}
}

// halves finds the change outside of transactions that the target has refused among several:
// what stands before it is applied. Nil: none is refused any more.
func (r *run) halves(ctx context.Context, changes []*Change, refused error) error {
	if len(changes) == 1 {
		return &ledOn{refused, []Way{behind(changes[0].Partition, changes[0].Offset)}}
	}
	cut := middle(changes)
	if cut == 0 {
		return refused
	}
	for _, half := range [][]*Change{changes[:cut], changes[cut:]} {
		b := Batch{Changes: half, Positions: make(map[Partition]Position), Divisible: true}
		for _, c := range half {
			b.Positions[c.Partition] = c.Position()
		}
		err := r.apply(ctx, &b, 0)
		if refuses(err) {
			err = r.halves(ctx, half, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// middle is where changes may be cut in two. The TRUNCATE of a topic stays whole: who stopped
// between its partitions would read on in those that are through, and empty the table again
// when the others follow. 0: all of them are one.
func middle(changes []*Change) int {
	inside := func(i int) bool { return changes[i-1].Op == OpTruncate && changes[i].Op == OpTruncate }
	half := len(changes) / 2
	for i := half; i < len(changes); i++ {
		if !inside(i) {
			return i
		}
	}
	for i := half; i > 0; i-- {
		if !inside(i) {
			return i
		}
	}
	return 0
}

// drain applies what comes until the queue is closed.
func (r *run) drain(ctx context.Context, queue <-chan *subscribe.Transaction, c *collector) error {
	reported := time.Now()
	for {
		c.single = r.careful > 0
		if more, err := c.next(queue); !more || err != nil {
			return err
		}
		if len(c.batch.Positions) == 0 && len(c.batch.Changes) == 0 {
			continue // all of it waits at a TRUNCATE
		}
		changes := len(c.batch.Changes)
		if err := r.applyBatch(ctx, c); err != nil {
			return err
		}
		r.careful -= changes
		if r.open += changes; !c.batch.More {
			r.open = 0
			if time.Since(reported) > reportEvery {
				r.report(ctx, c.batch.Positions)
				reported = time.Now()
			}
		}
		c.release()
	}
}
