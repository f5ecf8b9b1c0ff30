package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tailrace/tailrace/stream"
)

// Decision is the way on that a person has chosen after a sink stopped. Exactly one of its
// fields is set.
type Decision struct {
	AcceptGap     bool                `json:"accept_gap,omitempty"`
	SkipTo        map[Partition]int64 `json:"-"` // the first offset that is not left out
	FromBeginning bool                `json:"from_beginning,omitempty"`
}

func (d *Decision) way() string {
	switch {
	case d.AcceptGap && len(d.SkipTo) == 0 && !d.FromBeginning:
		return WayGap
	case len(d.SkipTo) > 0 && !d.AcceptGap && !d.FromBeginning:
		return WaySkip
	case d.FromBeginning && !d.AcceptGap && len(d.SkipTo) == 0:
		return WayBeginning
	}
	return ""
}

// Effect is what a decision does. It is told before it is done, and what is done is it.
type Effect struct {
	Sink       string            `json:"sink"`
	Way        string            `json:"way"` // WayGap, …
	Partitions []PartitionEffect `json:"partitions"`
	// Letters is how many dead letters are given up, with WayBeginning.
	Letters int `json:"letters,omitempty"`
}

// PartitionEffect is what a decision makes of one partition.
type PartitionEffect struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`           // offset that would be next
	To        int64  `json:"to"`             // offset that will be
	Skipped   int64  `json:"skipped"`        // records that are there and are not applied
	Missing   uint64 `json:"missing"`        // records that were written and are not there, as far as their numbers tell
	Again     int64  `json:"again"`          // offsets that are read again
	Note      string `json:"note,omitempty"` // what else there is to say
}

// Resolve carries out a decision about a sink that does not run. It takes the partitions from
// the target, which fences whoever has them; looks at the topics; tells agree what the
// decision does; and makes new positions durable in the target. Nothing of the positions is
// changed before agree has returned nil, nor if somebody has taken the partitions by then.
func Resolve(ctx context.Context, cfg Config, d Decision, agree func(context.Context, *Effect) error) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if d.way() == "" {
		return misconfigured("give one of --accept-gap, --skip-to and --from-beginning", "a decision must be one")
	}
	sink, err := cfg.Sink()
	if err != nil {
		return err
	}
	defer func() { _ = sink.Close() }()
	r := &resolution{cfg: &cfg, effect: Effect{Sink: cfg.Name, Way: d.way(), Partitions: []PartitionEffect{}}, to: make(map[Partition]Position)}
	if err := r.take(ctx, sink); err != nil {
		return err
	}
	switch r.effect.Way {
	case WayGap:
		err = r.acceptGaps(ctx)
	case WaySkip:
		err = r.skip(ctx, d.SkipTo)
	default:
		err = r.begin(ctx)
	}
	if err != nil {
		return err
	}
	if len(r.to) == 0 {
		return misconfigured("start the sink: tailrace run", "sink %s can go on where it is: there is nothing to decide", cfg.Name)
	}
	if err := agree(ctx, &r.effect); err != nil {
		return err
	}
	err = sink.Apply(ctx, &Batch{Positions: r.to})
	if errors.Is(err, ErrFenced) {
		return stopf("stop the sink where it runs, and decide again", "sink %s runs elsewhere, and has gone on: nothing was changed", cfg.Name)
	}
	if err != nil {
		return fmt.Errorf("write the decision into the target: %w", err)
	}
	cfg.Log.Info("carried out a decision", "sink", cfg.Name, "way", r.effect.Way, "partitions", len(r.to))
	return nil
}

// resolution is a decision, worked out.
type resolution struct {
	cfg    *Config
	ps     []Partition // of the changes, then of the ENDs if they are read
	heads  map[Partition]Position
	at     map[Partition]Position
	effect Effect
	to     map[Partition]Position
}

// take takes the partitions, and what is parked of them.
func (r *resolution) take(ctx context.Context, sink Sink) error {
	infos, err := r.cfg.Source.Client.Topics(ctx)
	if err != nil {
		return fmt.Errorf("look for topics: %w", err)
	}
	topics := r.cfg.choose(infos)
	if len(topics) == 0 {
		return misconfigured("check the sink's from, and the brokers", "there are no topics of changes with the prefix %s", r.cfg.Prefix)
	}
	if r.ps, err = partitionsOf(ctx, r.cfg, topics); err != nil {
		return err
	}
	all := slices.Clone(r.ps)
	if r.cfg.Mode == Transactions {
		end := Partition{Topic: r.cfg.EndTopic()}
		r.ps, all = append(r.ps, end), append(all, end)
	}
	heads := make(map[Partition]bool)
	_, err = r.cfg.Source.Client.Topic(ctx, DeadLettersTopic(r.cfg.Name))
	switch {
	case err == nil:
		for _, p := range r.ps {
			head := headPartition(r.cfg.Name, p)
			heads[head] = true
			all = append(all, head)
		}
	case !errors.Is(err, stream.ErrNoTopic):
		return fmt.Errorf("look at the dead letters: %w", err)
	}
	if r.at, err = sink.Take(ctx, all); err != nil {
		return err
	}
	r.heads = make(map[Partition]Position)
	for p, at := range r.at {
		if heads[p] && at != (Position{}) {
			r.heads[p] = at
		}
	}
	return nil
}

// move notes where a partition goes on.
func (r *resolution) move(p Partition, to Position, e PartitionEffect) {
	e.Topic, e.Partition, e.From, e.To = p.Topic, p.Number, r.at[p].Offset, to.Offset
	r.to[p] = to
	r.effect.Partitions = append(r.effect.Partitions, e)
}

// begin forgets all positions, and what is parked.
func (r *resolution) begin(ctx context.Context) error {
	for _, p := range r.ps {
		if r.at[p] == (Position{}) {
			continue
		}
		at, err := r.cfg.Source.Client.Offsets(ctx, p.Topic, p.Number)
		if err != nil {
			return fmt.Errorf("look at %s/%d: %w", p.Topic, p.Number, err)
		}
		e := PartitionEffect{Again: max(0, min(at.End, r.at[p].Offset)-at.Start)}
		if at.Start > 0 {
			e.Note = fmt.Sprintf("what stood before offset %d is gone: rows that have not changed since come by a backfill", at.Start)
		}
		r.move(p, Position{}, e)
		r.effect.Partitions[len(r.effect.Partitions)-1].To = at.Start
	}
	for head, at := range r.heads {
		r.to[head] = Position{}
		r.effect.Letters += int(at.N)
	}
	return nil
}

// acceptGaps has each partition whose records do not follow its position go on with what is
// there.
func (r *resolution) acceptGaps(ctx context.Context) error {
	for _, p := range r.ps {
		if err := r.acceptGap(ctx, p, r.at[p]); err != nil {
			return err
		}
	}
	return nil
}

func (r *resolution) acceptGap(ctx context.Context, p Partition, at Position) error {
	there, err := r.cfg.Source.Client.Offsets(ctx, p.Topic, p.Number)
	if err != nil {
		return fmt.Errorf("look at %s/%d: %w", p.Topic, p.Number, err)
	}
	from, note := at.Offset, ""
	switch {
	case at == (Position{}):
		return nil
	case at.Offset < there.Start:
		from, note = there.Start, "retention has removed what was next"
	case at.Offset > there.End:
		from, note = there.Start, "the topic was made anew, or the broker has lost its end"
	}
	first, err := r.first(ctx, p, from, there.LastStable)
	if err != nil {
		return err
	}
	switch {
	case first == nil && from == at.Offset:
		return nil
	case first == nil:
		r.move(p, Position{Offset: from}, PartitionEffect{Note: note + "; nothing is there"})
		return nil
	case from == at.Offset && (!at.Known() || first.N == at.N+1):
		return nil
	case from == at.Offset && first.N <= at.N:
		note = fmt.Sprintf("the numbers begin again with %d after %d: the topic was made anew", first.N, at.N)
	}
	e := PartitionEffect{Note: note}
	if at.Known() && first.N > at.N+1 {
		e.Missing = first.N - at.N - 1
	}
	r.move(p, Position{Offset: from, N: first.N - 1}, e)
	return nil
}

var errEnough = errors.New("enough was read")

// first returns the mark of the first record of a capture at or after an offset; nil: there is none.
func (r *resolution) first(ctx context.Context, p Partition, from, end int64) (*stream.Mark, error) {
	var first *stream.Mark
	err := r.read(ctx, p, from, end, func(rec *stream.Record) error {
		mark, _, found, err := rec.Mark()
		if err != nil {
			return fmt.Errorf("read record %d of %s/%d: %w", rec.Offset, p.Topic, p.Number, err)
		}
		if found {
			first = &mark
			return errEnough
		}
		return nil
	})
	return first, err
}

// read reads the records of offsets from to before end, until fn returns errEnough.
func (r *resolution) read(ctx context.Context, p Partition, from, end int64, fn func(*stream.Record) error) error {
	if from >= end {
		return nil
	}
	_, err := r.cfg.Source.Client.ReadToEnd(ctx, p.Topic, p.Number, from, func(rec *stream.Record) error {
		if rec.Offset >= end {
			return errEnough
		}
		return fn(rec)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// skip moves partitions on. Past ENDs, all partitions that they name move with them.
func (r *resolution) skip(ctx context.Context, to map[Partition]int64) error {
	end := Partition{Topic: r.cfg.EndTopic()}
	for _, p := range slices.SortedFunc(maps.Keys(to), comparePartitions) {
		if !slices.Contains(r.ps, p) {
			return misconfigured("the error of the sink names the place", "sink %s does not read %s/%d", r.cfg.Name, p.Topic, p.Number)
		}
		there, err := r.cfg.Source.Client.Offsets(ctx, p.Topic, p.Number)
		if err != nil {
			return fmt.Errorf("look at %s/%d: %w", p.Topic, p.Number, err)
		}
		from := max(r.at[p].Offset, there.Start)
		if to[p] <= from || to[p] > there.End {
			return misconfigured("give an offset between the two", "%s/%d cannot be skipped to offset %d: it is read from %d, and ends at %d", p.Topic, p.Number, to[p], from, there.End)
		}
		if p == end {
			err = r.skipTransactions(ctx, end, from, to[p])
		} else {
			err = r.skipRecords(ctx, p, from, to[p])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pass moves a position behind a record.
func pass(at *Position, rec *stream.Record) error {
	mark, _, found, err := rec.Mark()
	if err != nil {
		return fmt.Errorf("read the record at offset %d: %w", rec.Offset, err)
	}
	at.Offset = rec.Offset + 1
	if !found {
		return nil
	}
	at.N = mark.N
	if mark.Flags&stream.FlagBackfill == 0 || mark.Place.Compare(at.Place) > 0 {
		at.Place = mark.Place
	}
	return nil
}

// skipRecords moves one partition to an offset.
func (r *resolution) skipRecords(ctx context.Context, p Partition, from, to int64) error {
	at, e := r.at[p], PartitionEffect{}
	err := r.read(ctx, p, from, to, func(rec *stream.Record) error {
		e.Skipped++
		return pass(&at, rec)
	})
	if err != nil {
		return err
	}
	at.Offset = to
	r.move(p, at, e)
	return nil
}

// skipTransactions moves the ENDs to an offset, and the changes past what those end that are
// left out.
func (r *resolution) skipTransactions(ctx context.Context, end Partition, from, to int64) error {
	reach := make(map[Partition]Place)
	at, e := r.at[end], PartitionEffect{}
	err := r.read(ctx, end, from, to, func(rec *stream.Record) error {
		e.Skipped++
		mark, rest, found, err := rec.Mark()
		if err != nil || !found {
			return pass(&at, rec)
		}
		parts, err := stream.ParseEndParts(rest)
		if err != nil {
			return fmt.Errorf("read record %d of %s: %w", rec.Offset, end.Topic, err)
		}
		for _, part := range parts {
			place := mark.Place
			place.Row = part.Row
			reach[Partition{Topic: part.Topic, Number: part.Partition}] = place
		}
		return pass(&at, rec)
	})
	if err != nil {
		return err
	}
	at.Offset = to
	e.Note = fmt.Sprintf("%d source transactions are not applied", e.Skipped)
	r.move(end, at, e)
	for _, p := range slices.SortedFunc(maps.Keys(reach), comparePartitions) {
		if slices.Contains(r.ps, p) {
			if err := r.skipPast(ctx, p, reach[p]); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipPast moves a partition behind a place.
func (r *resolution) skipPast(ctx context.Context, p Partition, place Place) error {
	there, err := r.cfg.Source.Client.Offsets(ctx, p.Topic, p.Number)
	if err != nil {
		return fmt.Errorf("look at %s/%d: %w", p.Topic, p.Number, err)
	}
	at, e := r.at[p], PartitionEffect{}
	err = r.read(ctx, p, max(at.Offset, there.Start), there.LastStable, func(rec *stream.Record) error {
		mark, _, found, err := rec.Mark()
		if err != nil {
			return fmt.Errorf("read record %d of %s/%d: %w", rec.Offset, p.Topic, p.Number, err)
		}
		if found && mark.Place.Compare(place) > 0 {
			return errEnough
		}
		e.Skipped++
		return pass(&at, rec)
	})
	if err != nil || e.Skipped == 0 {
		return err
	}
	r.move(p, at, e)
	return nil
}
