package sinks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// Mode is what a sink keeps together.
type Mode string

// The modes.
const (
	Transactions Mode = "transactions" // whole source transactions; one member at a time
	Keys         Mode = "keys"         // the order of each key; members share the partitions
)

// Config is what a sink runs with.
type Config struct {
	Name    string               // its positions in the target, and its consumer group, are called by it
	Prefix  string               // topic prefix of the capture
	Topics  []string             // only these topics of changes; empty: all of the prefix
	Mode    Mode                 // empty: Transactions
	Source  subscribe.Config     // broker and registry
	Sink    func() (Sink, error) // makes the sink of one run
	Monitor *Monitor
	Log     *slog.Logger

	DeadLetters    Policy // of mode Keys; empty: Stop
	MaxDeadLetters int    // how many letters one member parks before it stops; 0: DefaultMaxDeadLetters
}

// Group returns the name of the sink's consumer group.
func (c *Config) Group() string { return "tailrace-sink-" + c.Name }

// EndTopic returns the topic of END records of the capture.
func (c *Config) EndTopic() string { return c.Prefix + ".transaction" }

const hintProgram = "this is a mistake in the program that calls sinks.Run"

func (c *Config) validate() error {
	switch {
	case c.Name == "" || c.Prefix == "":
		return misconfigured("give the sink a name and the topic prefix of its capture", "sink without a name or topic prefix")
	case c.Source.Client == nil || c.Source.Registry == nil || c.Sink == nil || c.Monitor == nil || c.Log == nil:
		return stopf(hintProgram, "sink without a broker, registry, target, monitor or log")
	case c.Mode != "" && c.Mode != Transactions && c.Mode != Keys:
		return misconfigured("choose transactions or keys", "unknown mode %q of sink %s", c.Mode, c.Name)
	case c.DeadLetters != "" && c.DeadLetters != Stop && c.DeadLetters != Park:
		return misconfigured("choose stop or park", "unknown policy %q for the dead letters of sink %s", c.DeadLetters, c.Name)
	case c.DeadLetters == Park && c.Mode != Keys:
		return misconfigured("a sink that applies whole transactions stops at a row that is refused: choose mode keys, or leave dead letters out", "sink %s has dead letters in mode transactions", c.Name)
	case c.MaxDeadLetters < 0:
		return misconfigured("give a number above 0", "sink %s may park %d dead letters", c.Name, c.MaxDeadLetters)
	}
	for _, t := range c.Topics {
		if !strings.HasPrefix(t, c.Prefix+".") || t == c.EndTopic() {
			return misconfigured("a sink reads topics of changes of one capture", "topic %s of sink %s is not one of changes under the prefix %s", t, c.Name, c.Prefix)
		}
	}
	if c.Mode == "" {
		c.Mode = Transactions
	}
	if c.DeadLetters == "" {
		c.DeadLetters = Stop
	}
	if c.MaxDeadLetters == 0 {
		c.MaxDeadLetters = DefaultMaxDeadLetters
	}
	return nil
}

// Run is one run of a sink: it joins the group, takes over partitions from where the target
// says, and applies what comes until ctx ends (it returns nil then) or something fails.
// After an error that is not fatal (IsFatal), calling it again is the recovery.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	cfg.Monitor.SetPhase(PhaseStarting)
	return leadOn(work(ctx, &cfg))
}

// work is Run without what leads on from its errors.
func work(ctx context.Context, cfg *Config) error {
	if cfg.Mode == Keys {
		return quiet(ctx, keys(ctx, cfg))
	}
	group := stream.GroupConfig{Group: cfg.Group(), Log: cfg.Log, Single: true, Topics: []string{cfg.EndTopic()}}
	return quiet(ctx, cfg.Source.Client.RunGroup(ctx, group, func(ctx context.Context, g *stream.Generation) error {
		if len(g.Partitions()) == 0 {
			return standBy(ctx, cfg)
		}
		return whole(ctx, cfg, g)
	}))
}

// standBy waits while other members have the partitions.
func standBy(ctx context.Context, cfg *Config) error {
	cfg.Monitor.SetPhase(PhaseStandby)
	<-ctx.Done()
	return context.Cause(ctx)
}

// quiet turns what a run says because it was told to end into nil.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil && !IsFatal(err) {
		return nil
	}
	return err
}

// discoverPause is how often the topics are looked for while there are none.
const discoverPause = 500 * time.Millisecond

// discover returns the topics of changes; it waits until there is one.
func discover(ctx context.Context, cfg *Config) ([]string, error) {
	for told := false; ; {
		infos, err := cfg.Source.Client.Topics(ctx)
		if err != nil {
			return nil, fmt.Errorf("look for topics: %w", err)
		}
		topics := cfg.choose(infos)
		if len(topics) > 0 {
			return topics, nil
		}
		if !told {
			cfg.Log.Info("waits for topics", "sink", cfg.Name, "prefix", cfg.Prefix)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(discoverPause):
		}
	}
}

// choose returns those of the topics that the sink reads.
func (c *Config) choose(infos []stream.TopicInfo) []string {
	var topics []string
	for _, t := range infos {
		wanted := len(c.Topics) == 0 || slices.Contains(c.Topics, t.Name)
		if wanted && c.ours(t.Name) {
			topics = append(topics, t.Name)
		}
	}
	return topics
}

// ours says whether a topic is one of changes of the capture: prefix.schema.table. A prefix
// may itself be the beginning of another's.
func (c *Config) ours(topic string) bool {
	rest, ok := strings.CutPrefix(topic, c.Prefix+".")
	return ok && topic != c.EndTopic() && strings.Contains(rest, ".")
}

// partitionsOf returns all partitions of topics.
func partitionsOf(ctx context.Context, cfg *Config, topics []string) ([]Partition, error) {
	var ps []Partition
	for _, t := range topics {
		info, err := cfg.Source.Client.Topic(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("look at topic %s: %w", t, err)
		}
		for n := range info.Partitions {
			ps = append(ps, Partition{Topic: t, Number: n})
		}
	}
	return ps, nil
}

// run is what both modes need while they own partitions.
type run struct {
	cfg  *Config
	sink Sink
	gen  *stream.Generation

	careful int // changes that are still to be applied one transaction at a time
	open    int // changes of the source transaction whose next pieces come, and what stood before it in its batch

	rows Rows
}

// take asks the target where to go on.
func (r *run) take(ctx context.Context, ps []Partition) ([]subscribe.FeedPartition, error) {
	positions, err := r.sink.Take(ctx, ps)
	if err != nil {
		return nil, err
	}
	from := make([]subscribe.FeedPartition, len(ps))
	for i, p := range ps {
		from[i] = subscribe.FeedPartition{Partition: p, From: positions[p]}
	}
	return from, nil
}

// apply hands a batch to the target and counts it.
func (r *run) apply(ctx context.Context, b *Batch, transactions int) error {
	Failpoint("sink-received")
	t := tally{transactions: transactions, began: time.Now()}
	r.count(&t, b)
	return r.applyCounted(ctx, b, &t)
}

// applyCounted hands a batch to the target.
func (r *run) applyCounted(ctx context.Context, b *Batch, t *tally) error {
	b.Schema = r.cfg.Source.Registry.SchemaByID
	if err := r.sink.Apply(ctx, b); err != nil {
		if errors.Is(err, ErrFenced) {
			return fmt.Errorf("apply changes: %w", err)
		}
		return err
	}
	t.durable = time.Now()
	r.cfg.Monitor.add(t)
	return nil
}

// count notes what b has, before the target may let go of it.
func (r *run) count(t *tally, b *Batch) {
	var first, last *Change
	for _, c := range b.Changes {
		t.ops[c.Op]++
		if c.Table != nil && !c.Backfill() {
			if first == nil {
				first = c
			}
			last = c
		}
	}
	t.oldest, t.last = r.committed(first), r.committed(last)
}

// committed returns when the source committed a change; zero if it is not known.
func (r *run) committed(c *Change) time.Time {
	if c == nil || r.rows.Decode(c) != nil {
		return time.Time{}
	}
	return time.UnixMicro(r.rows.CommittedMicros())
}

// report commits to the group how far it came, for tools that show lag. Nobody goes by
// it, so that failing matters only if the generation has ended, which ctx tells.
func (r *run) report(ctx context.Context, positions map[Partition]Position) {
	offsets := make(map[Partition]int64)
	for _, p := range r.gen.Partitions() {
		if at, ok := positions[p]; ok {
			offsets[p] = at.Offset
		}
	}
	if len(offsets) == 0 {
		return
	}
	if err := r.gen.Commit(ctx, offsets); err != nil && ctx.Err() == nil {
		r.cfg.Log.Debug("did not report offsets to the group", "sink", r.cfg.Name, "error", err)
	}
}
