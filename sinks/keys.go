package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// keys is a run in mode Keys. When there is a topic beyond those that it shares with the
// group, it begins anew.
func keys(ctx context.Context, cfg *Config) error {
	for {
		topics, err := discover(ctx, cfg)
		if err != nil {
			return err
		}
		group := stream.GroupConfig{Group: cfg.Group(), Log: cfg.Log, Topics: topics}
		err = cfg.Source.Client.RunGroup(ctx, group, func(ctx context.Context, g *stream.Generation) error {
			reading, found := context.WithCancelCause(ctx)
			var watching sync.WaitGroup
			defer watching.Wait()
			defer found(nil)
			watching.Go(func() { watch(reading, cfg, topics, found) })
			if len(g.Partitions()) == 0 {
				return standBy(reading, cfg)
			}
			return byKey(ctx, reading, cfg, g)
		})
		if !errors.Is(err, errDiscover) {
			return err
		}
		cfg.Log.Info("reads a new topic too", "sink", cfg.Name, "why", err)
	}
}

// byKey applies the partitions that the group gave to this member, each in its order, until
// reading ends: what is being applied then goes on until ctx does.
func byKey(ctx, reading context.Context, cfg *Config, g *stream.Generation) error {
	sink, err := cfg.Sink()
	if err != nil {
		return err
	}
	defer func() {
		if err := sink.Close(); err != nil {
			cfg.Log.Debug("did not close the target in order", "sink", cfg.Name, "error", err)
		}
	}()
	k := &keyed{run: run{cfg: cfg, sink: sink, gen: g}, parked: make(map[Partition]*barrier), at: make(map[Partition]Position)}
	if k.dead, err = openLetters(ctx, cfg); err != nil {
		return err
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	if k.dead == nil {
		return k.rounds(ctx, reading)
	}
	reading, stop := context.WithCancelCause(reading)
	var following sync.WaitGroup
	following.Go(func() { k.dead.follow(reading, stop) })
	err = k.rounds(ctx, reading)
	stop(nil)
	following.Wait()
	k.dead.inbox.close()
	return err
}

// begin takes the partitions, and with them what is parked of them.
func (k *keyed) begin(ctx context.Context) error {
	ps := k.gen.Partitions()
	all := slices.Clone(ps)
	if k.dead != nil {
		for _, p := range ps {
			all = append(all, headPartition(k.cfg.Name, p))
		}
	}
	from, err := k.take(ctx, all)
	if err != nil {
		return err
	}
	heads := make(map[Partition]Position)
	for i, p := range ps {
		k.at[p] = from[i].From
		if k.dead != nil {
			heads[p] = from[len(ps)+i].From
		}
	}
	if k.dead != nil {
		if err := k.dead.load(ctx, heads); err != nil {
			return err
		}
	}
	k.cfg.Monitor.SetPhase(PhaseRunning)
	k.cfg.Log.Info("sink runs", "sink", k.cfg.Name, "partitions", len(ps))
	return nil
}

func (k *keyed) rounds(ctx, reading context.Context) error {
	for {
		if err := k.round(ctx, reading); err != nil {
			return err
		}
	}
}

// watchEvery is how often new topics are looked for.
const watchEvery = 3 * time.Second

// watch looks for topics that are not among those that are read, and calls found once there
// is one.
func watch(ctx context.Context, cfg *Config, topics []string, found context.CancelCauseFunc) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		infos, err := cfg.Source.Client.Topics(ctx)
		if err != nil {
			continue // who reads will say what is wrong
		}
		for _, t := range cfg.choose(infos) {
			if !slices.Contains(topics, t) {
				found(fmt.Errorf("%w: topic %s", errDiscover, t))
				return
			}
		}
	}
}

// barrier is a TRUNCATE at which a partition waits.
type barrier struct {
	change *Change
	batch  *subscribe.Batch // holds the change's bytes
}

// keyed is a run in mode Keys. Partitions that reached a TRUNCATE are parked: a round reads
// the others, and ends when one more is to be parked.
type keyed struct {
	run
	at     map[Partition]Position
	parked map[Partition]*barrier
	dead   *letters // nil: there are none, and nothing is parked
	out    Batch
	given  []int // indexes of out's changes among those that it was made of
}

// round reads the partitions that are not parked until one of them reaches a TRUNCATE.
func (k *keyed) round(ctx, reading context.Context) error {
	var from []subscribe.FeedPartition
	for p, at := range k.at {
		if k.parked[p] == nil {
			from = append(from, subscribe.FeedPartition{Partition: p, From: at})
		}
	}
	feed, err := subscribe.NewFeed(ctx, k.cfg.Source, from)
	if err != nil {
		return err
	}
	defer feed.Close()
	reported := time.Now()
	for {
		b, err := k.next(ctx, reading, feed)
		if err != nil {
			return err
		}
		waits, err := k.upToBarrier(ctx, b)
		if err != nil {
			return err
		}
		if waits {
			return k.lift(ctx)
		}
		b.Release()
		if time.Since(reported) > reportEvery {
			k.report(ctx, k.at)
			reported = time.Now()
		}
	}
}

// next returns the next changes; requests that come while it waits for them are done.
func (k *keyed) next(ctx, reading context.Context, feed *subscribe.Feed) (*subscribe.Batch, error) {
	if k.dead == nil {
		return feed.Next(reading)
	}
	for {
		until, err := k.doRequests(ctx, reading)
		if err != nil {
			return nil, err
		}
		b, err := feed.Next(until)
		if err == nil || until.Err() == nil || reading.Err() != nil {
			return b, err
		}
	}
}

// upToBarrier applies a batch of one partition up to a TRUNCATE, at which the partition is parked.
func (k *keyed) upToBarrier(ctx context.Context, b *subscribe.Batch) (waits bool, err error) {
	changes := b.Changes
	for i := range changes {
		if changes[i].Op == OpTruncate {
			k.parked[b.Partition] = &barrier{&changes[i], b}
			changes, waits = changes[:i], true
			break
		}
	}
	return waits, k.pour(ctx, b.Partition, changes)
}

// pour applies changes of one partition, but for those that wait, and for those that the
// target refuses if these are parked.
func (k *keyed) pour(ctx context.Context, p Partition, changes []Change) error {
	d := divider{changes: changes}
	var refused error // the last
	d.try = func(ctx context.Context, lo, hi int) ([]int, error) {
		err := k.hand(ctx, p, changes, lo, hi)
		if refuses(err) {
			refused = err
		}
		return k.given, err
	}
	d.refuse = func(i int, why *Cause) error {
		if k.cfg.DeadLetters != Park {
			return &refusedByKey{refused, behind(p, changes[i].Offset)}
		}
		return k.dead.refuse(p, &changes[i], why)
	}
	return d.run(ctx, 0, len(changes))
}

// hand hands the target what does not wait of changes[lo:hi], and with it the position
// after all of them. What waits is durable before that.
func (k *keyed) hand(ctx context.Context, p Partition, changes []Change, lo, hi int) error {
	k.empty()
	for i := lo; i < hi; i++ {
		if k.dead != nil {
			if name, waits := k.dead.parts[p].laneOf(&changes[i]); waits {
				if err := k.dead.wait(p, name, &changes[i]); err != nil {
					return err
				}
				continue
			}
		}
		k.out.Changes, k.given = append(k.out.Changes, &changes[i]), append(k.given, i)
	}
	at := changes[hi-1].Position()
	k.out.Positions[p] = at
	if k.dead != nil {
		if err := k.dead.flush(ctx, p); err != nil {
			return err
		}
		if s := k.dead.parts[p]; s.head >= 0 {
			k.out.Positions[headPartition(k.cfg.Name, p)] = s.position()
		}
	}
	if err := k.apply(ctx, &k.out, 0); err != nil {
		return err
	}
	k.at[p] = at
	if k.dead != nil {
		return k.dead.tell(ctx, p)
	}
	return nil
}

// empty makes the batch ready to be filled.
func (k *keyed) empty() {
	clear(k.out.Changes)
	k.out.Changes, k.given = k.out.Changes[:0], k.given[:0]
	k.out.Positions = make(map[Partition]Position, 2)
	k.out.Divisible = true
}

// refusedByKey is why a sink without dead letters stops at a change.
type refusedByKey struct {
	error
	past Way
}

// Unwrap gives the cause.
func (e *refusedByKey) Unwrap() error { return e.error }

// Ways names what leads on if the target cannot be mended.
func (e *refusedByKey) Ways() []Way { return []Way{e.past} }

// Hint says what to do.
func (e *refusedByKey) Hint() string {
	hint := HintOf(e.error)
	if hint != "" {
		hint += "; "
	}
	return hint + "or set dead_letters: park for the sink: then only the key of such a change waits, until `tailrace dlq retry` or `dlq drop`"
}

// lift applies a TRUNCATE that all partitions of its topic have reached, and lets them go on.
func (k *keyed) lift(ctx context.Context) error {
	topics := make(map[string]int)
	for p := range k.parked {
		topics[p.Topic]++
	}
	for topic, waiting := range topics {
		info, err := k.cfg.Source.Client.Topic(ctx, topic)
		if err != nil {
			return fmt.Errorf("look at topic %s: %w", topic, err)
		}
		owned := 0
		for p := range k.at {
			if p.Topic == topic {
				owned++
			}
		}
		if owned < int(info.Partitions) {
			return stopf("run one member of the sink only until the TRUNCATE has passed, or use mode transactions",
				"topic %s has a TRUNCATE, and this member has %d of its %d partitions", topic, owned, info.Partitions)
		}
		if waiting < owned {
			continue
		}
		if err := k.truncate(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// truncate applies the TRUNCATE that stands at the head of each of a topic's partitions.
// What is parked of them is older: the TRUNCATE makes it obsolete.
func (k *keyed) truncate(ctx context.Context, topic string) error {
	k.empty()
	k.out.Divisible = false
	var done []*barrier
	ends := make(map[Partition]obsolete)
	for p, b := range k.parked {
		if p.Topic != topic {
			continue
		}
		k.out.Changes = append(k.out.Changes, b.change)
		k.out.Positions[p] = b.change.Position()
		done = append(done, b)
		if k.dead != nil && k.dead.parts[p].count > 0 {
			o, err := k.dead.obsolete(ctx, p, b.change)
			if err != nil {
				return err
			}
			ends[p] = o
			k.out.Positions[headPartition(k.cfg.Name, p)] = k.dead.after(p, o.at, &o.Outcome)
		}
	}
	if err := k.apply(ctx, &k.out, 0); err != nil {
		return err
	}
	for p := range k.parked {
		if p.Topic == topic {
			k.at[p] = k.out.Positions[p]
			delete(k.parked, p)
		}
	}
	for _, b := range done {
		b.batch.Release()
	}
	for p, o := range ends {
		if err := k.dead.settle(ctx, p, o.at, &o.Outcome); err != nil {
			return err
		}
	}
	return nil
}
