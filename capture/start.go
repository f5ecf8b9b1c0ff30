package capture

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// begin is the start of every run, and the only recovery: it looks at the log without
// touching it, takes ownership of the topics, reads the state and the tails, and chooses
// where to go on. What it returns is ready to run.
func begin(ctx context.Context, cfg *Config, src Source) (*pipeline, error) {
	info, err := src.Inspect(ctx)
	if err != nil {
		return nil, err
	}
	if err := makeStateTopic(ctx, cfg); err != nil {
		return nil, err
	}
	if err := makeCommandTopic(ctx, cfg); err != nil {
		return nil, err
	}
	s, err := loadState(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := checkLog(cfg, s, info); err != nil && !anew(cfg, err) {
		return nil, err // a misconfigured copy must not fence the one that runs
	}
	prod, err := own(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, cfg, s, prod); err != nil {
		return nil, err
	}
	if s, err = loadState(ctx, cfg); err != nil {
		return nil, err
	}
	if info, err = src.Inspect(ctx); err != nil {
		return nil, err
	}
	var p *pipeline
	err = checkLog(cfg, s, info)
	switch {
	case err != nil:
	case s.empty():
		return firstStart(ctx, cfg, src, info, s, prod)
	case s.newest().Snapshot == snapshotRunning:
		return newSnapshot(ctx, cfg, src, info, s, prod)
	default:
		p, err = resume(ctx, cfg, src, info, s, prod)
	}
	if anew(cfg, err) {
		cfg.Log.Warn("the log is lost: the tables are read anew, in a new epoch", "error", err)
		return newSnapshot(ctx, cfg, src, info, s, prod)
	}
	return p, err
}

// anew says whether an error is answered by reading the tables anew.
func anew(cfg *Config, err error) bool {
	var lost *logLost
	return cfg.Snapshot == SnapshotNeeded && errors.As(err, &lost)
}

// makeStateTopic makes the capture's state topic, compacted and with one partition.
func makeStateTopic(ctx context.Context, cfg *Config) error {
	_, err := cfg.Client.EnsureTopic(ctx, stream.TopicSpec{
		Name: cfg.StateTopic(), Partitions: 1, Replication: cfg.Topics.Replication, Create: cfg.Topics.Create,
		// small segments, so that compaction comes soon: every start reads the whole topic;
		// and large batches, since what a transaction did to all its partitions is one
		Config: map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.1",
			"max.message.bytes": "8388608"},
	})
	if err != nil {
		return fmt.Errorf("make the state topic: %w", err)
	}
	return nil
}

func loadState(ctx context.Context, cfg *Config) (*state, error) {
	records, err := cfg.Client.LoadState(ctx, cfg.StateTopic())
	if err != nil {
		return nil, fmt.Errorf("load state: %w", err)
	}
	return parseState(records)
}

// own makes the producer; on Apache Kafka that fences a predecessor and finishes or aborts
// what it left. On the embedded broker the data directory's lock has done that.
func own(ctx context.Context, cfg *Config) (*stream.Producer, error) {
	pc := stream.ProducerConfig{TransactionTimeout: cfg.TransactionTimeout, Log: cfg.Log}
	if cfg.Transactional {
		pc.TransactionalID = cfg.TransactionalID()
	}
	prod, err := cfg.Client.NewProducer(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("take ownership: %w", err)
	}
	return prod, nil
}

// settle waits until the state topic and ours hold no open transaction, and ends what a
// broker that was killed has left hanging of a predecessor's. A topic that is gone is told
// by readTail, which knows what was in it.
func settle(ctx context.Context, cfg *Config, s *state, prod *stream.Producer) error {
	err := prod.Settle(ctx, []stream.Partition{{Topic: cfg.StateTopic()}})
	if err != nil {
		return fmt.Errorf("wait for the state topic: %w", err)
	}
	var parts []stream.Partition
	for _, id := range s.known() {
		parts = append(parts, stream.Partition{Topic: id.Topic, Number: id.Number})
	}
	if err = prod.Settle(ctx, parts); err != nil && !errors.Is(err, stream.ErrNoTopic) {
		return fmt.Errorf("wait for the capture's topics: %w", err)
	}
	return nil
}

// checkLog compares the log with what the state says of it.
func checkLog(cfg *Config, s *state, info LogInfo) error {
	was := s.newest()
	if was == nil && info.Lost != nil {
		return &stop{err: info.Lost, hint: HintOf(info.Lost) + "; if nobody else reads the slot, a new epoch drops it and makes it anew", ways: []Way{{Flag: WayEpoch}}}
	}
	if was == nil && cfg.Snapshot.reads() && info.Ready {
		return epochf("if somebody else reads it, choose another slot name; set snapshot: never to read from the slot's position on, without the rows before. A new epoch drops the slot and makes it anew",
			"the slot was there before the capture: a snapshot of the tables cannot be tied to it")
	}
	if was == nil {
		return nil
	}
	if was.Identity != info.Identity {
		return epochf("if the configuration names the wrong database or slot, correct it. If the database was replaced, restored or upgraded, its tables can be read anew",
			"the state belongs to another log: it says %q, the database says %q", was.Identity, info.Identity)
	}
	switch running := was.Snapshot == snapshotRunning; {
	case running:
	case info.Lost != nil:
		return newLogLost(info.Lost, HintOf(info.Lost))
	case !info.Ready:
		return lostLog("the slot or publication that this capture had read to %s is gone", was.Position)
	}
	return checkTimeline(s, nil, &info)
}

// firstStart begins a capture that has never run: it refuses topics that hold records of
// ours already, makes what the log needs, and writes the first position.
func firstStart(ctx context.Context, cfg *Config, src Source, info LogInfo, s *state, prod *stream.Producer) (*pipeline, error) {
	if err := checkUnused(ctx, cfg, s); err != nil {
		return nil, err
	}
	if cfg.Snapshot.reads() {
		return newSnapshot(ctx, cfg, src, info, s, prod)
	}
	from := info.Lowest
	if !info.Ready {
		var err error
		if from, _, err = src.Prepare(ctx, false); err != nil {
			return nil, err
		}
		cfg.Log.Info("slot and publication are ready", "position", from.String())
	}
	st := start{slot: 0, maxG: 1, from: positionState{G: 1, Epoch: 1, Identity: info.Identity, Timeline: info.Timeline, Position: from, Snapshot: snapshotNone}}
	p := newPipeline(cfg, s, st, nil, prod, src)
	if err := p.send.sendRecords(ctx, []stateRecord{{key: positionKey(0), value: mustJSON(st.from)}}); err != nil {
		return nil, fmt.Errorf("write the first position: %w", err)
	}
	return p, p.routeEnd(ctx)
}

// checkUnused makes sure that no record of ours stands in the topics that a capture
// without a state would write to.
func checkUnused(ctx context.Context, cfg *Config, s *state) error {
	const lost = "if the capture was renamed, give it its old name, or a new topic prefix; if its state topic was lost, the tables can be read anew"
	if len(s.partitions) > 0 || len(s.tables) > 0 || len(s.routing.Topics) > 0 {
		return epochf(lost, "the state topic %s has no position", cfg.StateTopic())
	}
	topics, err := cfg.Client.Topics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	for _, t := range topics {
		if !strings.HasPrefix(t.Name, cfg.Naming.Prefix+".") {
			continue
		}
		for p := range t.Partitions {
			if err := checkPartitionUnused(ctx, cfg, PartitionID{t.Name, p}, lost); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkPartitionUnused(ctx context.Context, cfg *Config, id PartitionID, hint string) error {
	const last = 1000 // offsets to look at: more than a transaction's markers
	at, err := cfg.Client.Offsets(ctx, id.Topic, id.Number)
	if err != nil || at.End == at.Start {
		return err
	}
	t, err := cfg.Client.Tail(ctx, id.Topic, id.Number, max(at.Start, at.End-last))
	if err != nil {
		return fmt.Errorf("read the end of %s: %w", id, err)
	}
	if t.Found {
		return epochf(hint, "there is no state, but %s holds records of a capture", id)
	}
	return nil
}

// resume chooses where to go on and checks that the log still reaches there.
func resume(ctx context.Context, cfg *Config, src Source, info LogInfo, s *state, prod *stream.Producer) (*pipeline, error) {
	tails, err := readTails(ctx, cfg, s)
	if err != nil {
		return nil, err
	}
	if mutant("trust-position") {
		for id, t := range tails {
			r := s.partitions[id]
			t.n, t.place = r.N, r.Place
			tails[id] = t
		}
	}
	st, err := choose(s, tails)
	if err != nil {
		return nil, err
	}
	if st.from.Snapshot == snapshotRunning { // that it is done was not borne out
		return newSnapshot(ctx, cfg, src, info, s, prod)
	}
	if err := checkReach(st.from, info); err != nil {
		return nil, err
	}
	if err := checkTimeline(s, tails, &info); err != nil {
		return nil, err
	}
	if err := checkUnseen(s, tails); err != nil {
		return nil, err
	}
	st.from.Timeline = info.Timeline
	p := newPipeline(cfg, s, st, tails, prod, src)
	p.prog.highest = info.Highest
	if mutant("no-drop") {
		for _, part := range p.prog.parts {
			part.tail.place, part.place = stream.Place{}, stream.Place{}
		}
		p.prog.dropAhead()
	}
	for _, part := range p.prog.ahead {
		if part.tail.op, err = tailOp(ctx, cfg, &part.tail); err != nil {
			return nil, fmt.Errorf("read the end of %s: %w", part.id, err)
		}
	}
	cfg.Log.Info("recovered", "position", st.from.Position.String(), "g", st.from.G, "newest_g", st.maxG,
		"partitions", len(p.prog.parts), "tails_ahead", len(p.prog.ahead), "rolled_back", st.stale)
	if records := newTimeline(s, info.Timeline); records != nil {
		if err := p.send.sendRecords(ctx, records); err != nil {
			return nil, fmt.Errorf("write the new timeline: %w", err)
		}
	}
	if st.from.G < st.maxG {
		// A commit was rolled back. What the state says of it must go before anything is
		// written: rows of a backfill are not the same when they are read again, so that a
		// later start might find the old state borne out by other records.
		if err := p.send.sendCut(ctx, p.prog.cut()); err != nil {
			return nil, fmt.Errorf("write the position that holds: %w", err)
		}
	}
	return p, p.routeEnd(ctx)
}

// checkReach makes sure that the log holds everything after the position, and the
// position itself.
func checkReach(from positionState, info LogInfo) error {
	if from.Position.Compare(info.Lowest) < 0 {
		return lostLog("the slot was advanced or made anew by somebody else: the log can be read from %s only, but the topics end at %s", info.Lowest, from.Position)
	}
	if from.Position.Compare(info.Highest) > 0 {
		return epochf("the database was restored to an earlier time, or it is another server; the topics hold changes that it does not",
			"the topics end at %s, but the log ends at %s", from.Position, info.Highest)
	}
	return nil
}

// newPipeline puts a run together.
func newPipeline(cfg *Config, s *state, st start, tails map[PartitionID]tail, prod *stream.Producer, src Source) *pipeline {
	prog := newProgress(s, st, tails)
	p := &pipeline{cfg: cfg, log: cfg.Log, prog: prog, routes: newRoutes(cfg, s, prog), confirm: src.Confirm,
		send: newSender(cfg, prod, st.from.Position, src.Confirm), lastCut: st.from.Position}
	p.group = <-p.send.empty
	p.engine = newEngine(p, src, s, st.from.G)
	return p
}

// routeEnd prepares the topic and the schemas of END records, and makes the routing
// durable.
func (p *pipeline) routeEnd(ctx context.Context) (err error) {
	key, value := schemas.TransactionSchemas()
	name := p.cfg.EndTopic()
	if p.end.keyID, err = p.routes.registerSchema(ctx, name+"-key", key); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	if p.end.valueID, err = p.routes.registerSchema(ctx, name+"-value", value); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	if records := p.routes.settledRecord(); records != nil {
		if err := p.send.sendRecords(ctx, records); err != nil {
			return err
		}
	}
	topic, known := p.routes.topics[name]
	if !known {
		from := stream.Place{Epoch: p.prog.epoch, File: p.prog.baseOrder.File, Pos: p.prog.baseOrder.Pos}
		var records []stateRecord
		if topic, records, err = p.newTopic(ctx, name, topicState{From: from, Partitions: 1}); err != nil {
			return err
		}
		if len(topic.parts) != 1 {
			return stopf("delete it, or choose another topic prefix", "topic %s has %d partitions, END records need exactly one", name, len(topic.parts))
		}
		err = p.send.sendRecords(ctx, records)
	}
	p.end.topic = topic
	return err
}
