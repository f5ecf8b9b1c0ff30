package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	from, err := k.take(ctx, g.Partitions())
	if err != nil {
		return err
	}
	for _, p := range from {
		k.at[p.Partition] = p.From
	}
	cfg.Monitor.SetPhase(PhaseRunning)
	cfg.Log.Info("sink runs", "sink", cfg.Name, "partitions", len(from))
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
		b, err := feed.Next(reading)
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

// upToBarrier applies a batch of one partition up to a TRUNCATE, at which the partition is parked.
func (k *keyed) upToBarrier(ctx context.Context, b *subscribe.Batch) (waits bool, err error) {
	out := Batch{Positions: make(map[Partition]Position)}
	for i := range b.Changes {
		c := &b.Changes[i]
		if c.Op == OpTruncate {
			k.parked[b.Partition] = &barrier{c, b}
			waits = true
			break
		}
		out.Changes = append(out.Changes, c)
	}
	if n := len(out.Changes); n > 0 {
		out.Positions[b.Partition] = out.Changes[n-1].Position()
		if err := k.apply(ctx, &out, 0); err != nil {
			return false, err
		}
		k.at[b.Partition] = out.Positions[b.Partition]
	}
	return waits, nil
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
func (k *keyed) truncate(ctx context.Context, topic string) error {
	out := Batch{Positions: make(map[Partition]Position)}
	var done []*barrier
	for p, b := range k.parked {
		if p.Topic == topic {
			out.Changes = append(out.Changes, b.change)
			out.Positions[p] = b.change.Position()
			done = append(done, b)
		}
	}
	if err := k.apply(ctx, &out, 0); err != nil {
		return err
	}
	maps.Copy(k.at, out.Positions)
	maps.DeleteFunc(k.parked, func(p Partition, _ *barrier) bool { return p.Topic == topic })
	for b := range slices.Values(done) {
		b.batch.Release()
	}
	return nil
}
