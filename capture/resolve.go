package capture

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// Decision is the way on that a person has chosen after a capture stopped. Exactly one of
// its fields is set.
type Decision struct {
	NewEpoch     bool      `json:"new_epoch,omitempty"`
	SkipTo       *Position `json:"skip_to,omitempty"`       // leave out what the log has before
	AcceptSchema string    `json:"accept_schema,omitempty"` // subject of the schema that the registry refused
	Repartition  []string  `json:"repartition,omitempty"`   // topics whose keys go to all their partitions from now on
}

func (d *Decision) way() string {
	var ways []string
	for way, chosen := range map[string]bool{
		WayEpoch: d.NewEpoch, WaySkip: d.SkipTo != nil, WaySchema: d.AcceptSchema != "", WayKeys: len(d.Repartition) > 0,
	} {
		if chosen {
			ways = append(ways, way)
		}
	}
	if len(ways) != 1 {
		return ""
	}
	return ways[0]
}

// Effect is what a decision does. It is told before it is done, and what is done is it.
type Effect struct {
	Capture string `json:"capture"`
	Way     string `json:"way"`   // WayEpoch, …
	Epoch   uint64 `json:"epoch"` // of what is written from then on
	// From is how far the topics have the log. To is where it is read from then on; nil: where
	// it stands when the capture starts, or as before.
	From *Position `json:"from,omitempty"`
	To   *Position `json:"to,omitempty"`

	Reads    bool          `json:"reads_tables"`            // all tables are read anew, after a TRUNCATE in their topics
	Again    bool          `json:"again"`                   // changes between To and From are written again
	Slot     string        `json:"slot,omitempty"`          // what becomes of what the source keeps for the capture
	Skipped  *Skipped      `json:"skipped,omitempty"`       // with WaySkip
	Topics   []TopicEffect `json:"topics,omitempty"`        // that are not as the state says
	Forgets  []string      `json:"forgets,omitempty"`       // records of the state topic that cannot be read
	Schema   *SchemaEffect `json:"schema,omitempty"`        // with WaySchema
	Backfill []string      `json:"ends_backfill,omitempty"` // backfills under way that end
}

// TopicEffect is what a decision makes of a topic.
type TopicEffect struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"` // -1: all of them
	What      string `json:"what"`
}

// SchemaEffect is what a decision makes of a subject.
type SchemaEffect struct {
	Subject string `json:"subject"`
	Version int    `json:"version"` // the last one, which the next one replaces
	Level   string `json:"level"`   // of compatibility, which is put back afterwards
}

// Resolve carries out a decision about a capture that does not run: it looks at the state,
// the topics and the log, tells agree what the decision does, takes ownership, looks again,
// and writes a state from which the next start goes on. Nothing is changed before agree
// has returned nil. If what it was told is no longer so by then, nothing is changed either.
//
// It needs of cfg what Run does; the registry only for AcceptSchema. Its errors are those of a
// start, and say what is in the way of the decision. A capture that runs keeps its log
// busy, which is one of them.
func Resolve(ctx context.Context, cfg Config, d Decision, agree func(context.Context, *Effect) error) error {
	if err := cfg.validate(); err != nil {
		return stopf("this is a mistake in the program that calls capture.Resolve", "%w", err)
	}
	if d.way() == "" {
		return stopf("give one of --new-epoch, --skip-to, --accept-schema and --repartition", "a decision must be one")
	}
	told, err := look(ctx, &cfg, &d)
	if err != nil {
		return err
	}
	if err := agree(ctx, &told.effect); err != nil {
		return err
	}
	prod, err := own(ctx, &cfg)
	if err != nil {
		return err
	}
	if err := settle(ctx, &cfg, told.s, prod); err != nil && !errors.Is(err, stream.ErrNoTopic) {
		return err
	}
	now, err := look(ctx, &cfg, &d)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(now.effect, told.effect) {
		return stopf("nothing was changed: look at what the decision does now, and decide again", "what the decision would do is no longer what was told")
	}
	return now.carryOut(ctx, &cfg, prod)
}

// resolution is a decision, worked out.
type resolution struct {
	s       *state
	info    LogInfo
	effect  Effect
	records []stateRecord // to be written at once
	make    bool          // the log is to be made ready; the position comes from that
	next    positionState // the position to be written, under both keys
}

// look works out a decision; it changes nothing.
func look(ctx context.Context, cfg *Config, d *Decision) (*resolution, error) {
	src, err := cfg.Source()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r := &resolution{effect: Effect{Capture: cfg.Name, Way: d.way()}}
	if r.info, err = src.Inspect(ctx); err != nil {
		return nil, err
	}
	records, err := cfg.Client.LoadState(ctx, cfg.StateTopic())
	if err != nil && !errors.Is(err, stream.ErrNoTopic) {
		return nil, fmt.Errorf("load state: %w", err)
	}
	if r.s, err = parseState(records); err != nil {
		if d.way() != WayEpoch {
			return nil, err
		}
		r.s = r.parseWhatCan(records)
	}
	switch r.effect.Way {
	case WaySkip:
		err = r.skip(ctx, cfg, src, *d.SkipTo)
	case WaySchema:
		err = r.accept(ctx, cfg, d.AcceptSchema)
	case WayKeys:
		err = r.repartition(ctx, cfg, d.Repartition)
	default:
		err = r.newEpoch(ctx, cfg, nil)
	}
	return r, err
}

// parseWhatCan reads a state of which some records cannot be read; those are removed.
func (r *resolution) parseWhatCan(records map[string][]byte) *state {
	s := emptyState()
	for _, key := range sortedKeys(records) {
		one := emptyState()
		if one.parse(key, records[key]) != nil || s.parse(key, records[key]) != nil {
			r.effect.Forgets = append(r.effect.Forgets, key)
			r.records = append(r.records, stateRecord{key: key})
		}
	}
	return s
}

// carryOut writes what was worked out, at once.
func (r *resolution) carryOut(ctx context.Context, cfg *Config, prod *stream.Producer) error {
	if r.make {
		if err := r.makeReady(ctx, cfg); err != nil {
			return err
		}
	}
	r.putNext()
	if err := makeStateTopic(ctx, cfg); err != nil {
		return err
	}
	s := newSender(cfg, prod, r.next.Position, func(Position) {})
	if err := s.sendRecords(ctx, r.records); err != nil {
		return fmt.Errorf("write the decision into the state: %w", err)
	}
	cfg.Log.Info("carried out a decision", "capture", cfg.Name, "way", r.effect.Way, "epoch", r.effect.Epoch)
	return nil
}

// makeReady makes what the log needs, without a snapshot, and takes the position from it.
func (r *resolution) makeReady(ctx context.Context, cfg *Config) error {
	src, err := cfg.Source()
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Inspect(ctx); err != nil {
		return err
	}
	if r.info.Lost != nil {
		if err := src.Discard(ctx); err != nil {
			return err
		}
	}
	r.next.Position, _, err = src.Prepare(ctx, false)
	return err
}

// putNext has the position written.
func (r *resolution) putNext() {
	if r.next == (positionState{}) {
		return
	}
	g := r.nextG()
	for i := range 2 { // one cannot be rolled back to what was before
		at := r.next
		at.G = g + uint64(i)
		r.records = append(r.records, stateRecord{key: positionKey(i), value: mustJSON(at)})
	}
}

// nextG is a number that no cut has, with room for another.
func (r *resolution) nextG() uint64 {
	if was := r.s.newest(); was != nil {
		return was.G + 1
	}
	return 1
}

// put has the state of a partition written as its tail is.
func (r *resolution) put(id PartitionID, t *tail, past int64) {
	r.records = append(r.records, stateRecord{key: partitionKey(id), value: mustJSON(partitionState{
		G: r.nextG(), N: t.n, Place: t.place, Before: t.n, BeforePlace: t.place, Offset: t.offset,
		Read: t.read(), BeforeRead: t.read(), Past: past,
	})})
}

// ranges has backfills go on from where they were at the position of cut g: rows that were
// written later may have been torn away.
func (r *resolution) ranges(g uint64) {
	for id, ranges := range r.s.chunks {
		for n, one := range ranges {
			if one.G > g {
				r.records = append(r.records, stateRecord{key: chunkKey(id, n), value: mustJSON(one.back(r.nextG()))})
			}
		}
	}
}

// accept notes that the next schema of a subject is to be registered, whatever the
// registry says of it.
func (r *resolution) accept(ctx context.Context, cfg *Config, subject string) error {
	if r.s.empty() {
		return stopf("check the name, and the brokers", "capture %s has never run", cfg.Name)
	}
	last, err := cfg.Registry.Latest(ctx, subject)
	if registry.NotFound(err) {
		return stopf("the error of the capture names it: a topic with -key or -value", "look at subject %s: %w", subject, err)
	}
	if err != nil {
		return fmt.Errorf("look at subject %s: %w", subject, err)
	}
	level, own, err := cfg.Registry.SubjectLevel(ctx, subject)
	if err != nil {
		return fmt.Errorf("look at subject %s: %w", subject, err)
	}
	text := string(level)
	if !own {
		text += " (that of all subjects)"
	}
	r.effect.Epoch = r.s.newest().Epoch
	r.effect.Schema = &SchemaEffect{Subject: subject, Version: last.Version, Level: text}
	accepted := acceptances{subject: {Version: last.Version, Level: level, Own: own, At: time.Now().UTC()}}
	for other, a := range r.s.accepted {
		if other != subject {
			accepted[other] = a
		}
	}
	r.records = append(r.records, stateRecord{key: acceptedKey, value: mustJSON(accepted)})
	return nil
}

// skip goes on at a position ahead, from the state as it is.
func (r *resolution) skip(ctx context.Context, cfg *Config, src Source, to Position) error {
	if err := r.checkSkip(cfg); err != nil {
		return err
	}
	tails, err := readTails(ctx, cfg, r.s)
	if err != nil {
		return err
	}
	st, err := choose(r.s, tails)
	if err != nil {
		return err
	}
	if err := checkReach(st.from, r.info); err != nil {
		return err
	}
	if err := checkTimeline(r.s, tails, &r.info); err != nil {
		return err
	}
	if to.Compare(st.from.Position) <= 0 || to.Compare(r.info.Highest) > 0 {
		return stopf("give a position that the log has after that; the error of the capture names one",
			"the log cannot be skipped to %s: it has been read to %s and ends at %s", to, st.from.Position, r.info.Highest)
	}
	if err := r.ahead(st, tails, to); err != nil {
		return err
	}
	if r.effect.Skipped, err = countLog(ctx, cfg, src, st.from.Position, to); err != nil {
		return err
	}
	r.effect.Skipped.partly(st.from.Order, to, tails)
	r.effect.Epoch, r.effect.From, r.effect.To = st.from.Epoch, &st.from.Position, &to
	return nil
}

// ahead has the next start go on at a position ahead of where it would, and leaves the rest as
// it would be.
func (r *resolution) ahead(st start, tails map[PartitionID]tail, to Position) error {
	for id, t := range tails {
		if t.unseen > 0 {
			return epochf("the records before that position cannot be told from those after it", "partition %s had %d records that no state tells of, and that are gone", id, t.unseen)
		}
		r.put(id, &t, r.s.partitions[id].Past)
	}
	r.ranges(st.from.G)
	r.next = st.from
	r.next.Position, r.next.Timeline = to, r.info.Timeline
	r.next.Order = order{File: to.File, Pos: to.Offset - 1}
	return nil
}

// checkSkip makes sure that the log is the one that the state tells of, and can be read.
func (r *resolution) checkSkip(cfg *Config) error {
	switch was := r.s.newest(); {
	case was == nil:
		return stopf("check the name, and the brokers", "capture %s has never run", cfg.Name)
	case was.Snapshot == snapshotRunning:
		return stopf("the next start reads the tables anew, from where the log stands then", "capture %s is about to begin a snapshot: there is nothing to skip", cfg.Name)
	}
	return checkLog(cfg, r.s, r.info)
}

// newEpoch begins anew, with topics as they are. In repartitioned topics keys go to all
// partitions that there are.
func (r *resolution) newEpoch(ctx context.Context, cfg *Config, repartitioned []string) error {
	f := &found{r: r, cfg: cfg, routing: routingState{Topics: make(map[string]topicState)}}
	if err := f.find(ctx, repartitioned); err != nil {
		return err
	}
	if r.s.empty() && len(r.s.partitions) == 0 && len(r.effect.Topics) == 0 && len(r.effect.Forgets) == 0 && !r.info.Ready && r.info.Lost == nil {
		return stopf("check the name, and the brokers", "capture %s has never run", cfg.Name)
	}
	r.records = append(r.records, stateRecord{key: routingKey, value: mustJSON(f.routing)})
	was := positionState{}
	if p := r.s.newest(); p != nil {
		was = *p
		r.effect.From = &p.Position
	}
	last := max(was.Epoch, f.epoch)
	r.effect.Epoch = last + 1
	if !cfg.Snapshot.reads() {
		r.goOn(was, last+1)
		return nil
	}
	r.next = positionState{Epoch: last, Identity: r.info.Identity, Timeline: r.info.Timeline, Position: was.Position, Order: was.Order, Snapshot: snapshotRunning}
	r.effect.Reads = true
	for _, b := range r.s.listBackfills() {
		if !b.State.Ended() {
			r.effect.Backfill = append(r.effect.Backfill, b.ID)
		}
	}
	if r.info.Ready || r.info.Lost != nil {
		r.effect.Slot = "dropped and made anew when the capture starts"
	}
	return nil
}

// goOn has an epoch without a snapshot begin where the last one stood, if the log has that;
// else where the log begins.
func (r *resolution) goOn(last positionState, epoch uint64) {
	r.next = positionState{Epoch: epoch, Identity: r.info.Identity, Timeline: r.info.Timeline, Position: last.Position, Snapshot: snapshotNone}
	r.ranges(r.s.oldest())
	was := &r.next.Position
	if at, ok := r.info.fork(last.Timeline); ok && last.Timeline != r.info.Timeline && was.Compare(at) > 0 {
		*was = at // what the capture read after that is in no log
	}
	switch {
	case !r.info.Ready:
		r.make = true
		r.effect.Slot = "made anew now"
		return
	case r.s.empty(), r.otherLog(&last), was.Compare(r.info.Lowest) < 0, was.Compare(r.info.Highest) > 0:
		*was = r.info.Lowest
	default:
		for _, p := range r.s.positions { // the older one: the newer may have been torn
			if p != nil && p.Position.Compare(r.info.Lowest) >= 0 && p.Position.Compare(*was) < 0 && p.Epoch == last.Epoch {
				*was = p.Position
			}
		}
	}
	to := *was
	r.effect.To = &to
	r.effect.Again = r.effect.From != nil && to.Compare(*r.effect.From) < 0
}

// otherLog says whether the log is not the one that a position is of: then the position means
// nothing there.
func (r *resolution) otherLog(p *positionState) bool {
	if p.Identity != r.info.Identity {
		return true
	}
	_, known := r.info.fork(p.Timeline)
	return p.Timeline != 0 && r.info.Timeline != 0 && p.Timeline != r.info.Timeline && !known
}

// repartition is a new epoch: only that tells readers that keys have moved.
func (r *resolution) repartition(ctx context.Context, cfg *Config, topics []string) error {
	if r.s.empty() {
		return stopf("check the name, and the brokers", "capture %s has never run", cfg.Name)
	}
	for _, name := range topics {
		t, ok := r.s.routing.Topics[name]
		info, err := cfg.Client.Topic(ctx, name)
		switch {
		case !ok || t.Collection == "" && name == cfg.EndTopic() || t.Of != "":
			return stopf("`tailrace topic list` shows the topics", "capture %s does not write the changes of a table to topic %q", cfg.Name, name)
		case err != nil:
			return fmt.Errorf("look at topic %s: %w", name, err)
		case info.Partitions <= t.Partitions:
			return stopf("give it more first: kafka-topics.sh --alter --topic "+name+" --partitions N", "topic %s has %d partitions, and the capture uses %d", name, info.Partitions, t.Partitions)
		}
	}
	if !cfg.Snapshot.reads() {
		return stopf("set snapshot: initial, or when_needed, for the start after it",
			"without a snapshot nothing tells readers which of a key's changes comes first, that in its old partition or that in its new one")
	}
	if err := checkLog(cfg, r.s, r.info); err != nil {
		return err
	}
	return r.newEpoch(ctx, cfg, slices.Clone(topics))
}
